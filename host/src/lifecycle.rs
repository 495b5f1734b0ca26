//! The one state of the process, and the signals that end it.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Where the process is in its life. It only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not serving yet; waiting for what is named here.
    Starting(Step),
    /// Serving.
    Ready,
    /// Asked to end: still serving, but no new client should be sent here.
    Draining,
}

/// The steps of a start, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Reading and compiling the component.
    Compile,
    /// Instantiating it once, to prove that it works.
    Instantiate,
    /// Binding the traffic port.
    Listen,
}

/// One line of a health report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Check {
    /// What was checked.
    pub(crate) name: &'static str,
    /// Whether it holds.
    pub(crate) passed: bool,
    /// What it means that it holds, or does not.
    pub(crate) output: &'static str,
}

/// Shared by everything that asks for the phase, moves it, or waits for it. Clones are the same state.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    phase: watch::Sender<Phase>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Starting(Step::Compile)) }
    }
}

impl Lifecycle {
    /// The phase now.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves forward to `next`. A phase that is already past stays past.
    pub(crate) fn advance(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = next > *phase;
            if forward {
                *phase = next;
            }
            forward
        });
    }

    /// Whether new clients are welcome: `Err` says in a few words why not.
    pub(crate) fn readiness(&self) -> Result<(), &'static str> {
        match self.phase() {
            Phase::Ready => Ok(()),
            Phase::Starting(Step::Compile) => Err("starting: compiling the component"),
            Phase::Starting(Step::Instantiate) => Err("starting: instantiating the component"),
            Phase::Starting(Step::Listen) => Err("starting: binding the traffic port"),
            Phase::Draining => Err("draining: the process was asked to end"),
        }
    }

    /// Every check behind [`Lifecycle::readiness`], for people and for `/health`.
    pub(crate) fn checks(&self) -> [Check; 4] {
        let phase = self.phase();
        let check = |name, passed, good, bad| Check { name, passed, output: if passed { good } else { bad } };
        [
            check("component", phase > Phase::Starting(Step::Compile), "compiled", "not compiled yet"),
            check("instance", phase > Phase::Starting(Step::Instantiate), "instantiated", "not instantiated yet"),
            check("listener", phase > Phase::Starting(Step::Listen), "bound", "not bound yet"),
            check("lifecycle", phase != Phase::Draining, "not draining", "draining"),
        ]
    }
}

/// SIGTERM (Kubernetes ends a pod) and SIGINT (Ctrl-C), told apart by nothing.
#[derive(Debug)]
pub struct TerminationSignals {
    terminate: Signal,
    interrupt: Signal,
    asked: bool,
}

impl TerminationSignals {
    /// Takes over both signals. From now on neither ends the process by itself.
    ///
    /// # Errors
    /// When the operating system refuses a handler, or outside a runtime with I/O enabled.
    pub fn install() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, asked: false })
    }

    /// Waits for the next of them, logs it, and returns its name.
    pub async fn next(&mut self) -> &'static str {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        if self.asked {
            tracing::warn!(signal, "asked twice: ending at once");
        } else {
            tracing::info!(signal, "asked to end");
        }
        self.asked = true;
        signal
    }
}
