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

/// SIGTERM (Kubernetes ends a pod) and SIGINT (Ctrl-C), told apart by nothing; and the signals that would end a process that
/// does not know them, which cost no request here: they are logged, and nothing else comes of them.
#[derive(Debug)]
pub struct TerminationSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
    user1: Signal,
    user2: Signal,
    asked: bool,
}

impl TerminationSignals {
    /// Takes over SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2. From now on none of them ends the process by itself.
    ///
    /// # Errors
    /// When the operating system refuses a handler, or outside a runtime with I/O enabled.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            asked: false,
        })
    }

    /// Waits for the next that asks the process to end, logs it, and returns its name. Those that are ignored are logged for
    /// as long as this waits.
    pub async fn next(&mut self) -> &'static str {
        let signal = loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => break "SIGTERM",
                _ = self.interrupt.recv() => break "SIGINT",
                _ = self.hangup.recv() => "SIGHUP",
                _ = self.quit.recv() => "SIGQUIT",
                _ = self.user1.recv() => "SIGUSR1",
                _ = self.user2.recv() => "SIGUSR2",
            };
            tracing::warn!(signal = ignored, "this signal is ignored: SIGTERM drains");
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
