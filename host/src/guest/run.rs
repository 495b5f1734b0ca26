//! The run of one guest: a future that is polled by whoever wants something of it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::instance::Lease;
use crate::error::Error;
use crate::metrics::Metrics;

type Running = Pin<Box<dyn Future<Output = Result<Option<Lease>, Error>> + Send>>;

/// The rest of a guest's run. Dropping it stops the guest; when it is over, polling it is free.
pub struct Run {
    running: Option<Running>,
    /// The instance of a run that is over, if it may answer others: but not before its body was taken.
    lease: Option<Lease>,
    taken: bool,
}

impl Run {
    /// A run that begins with its first poll.
    pub fn new(run: impl Future<Output = Result<Option<Lease>, Error>> + Send + 'static) -> Self {
        Self { running: Some(Box::pin(run)), lease: None, taken: false }
    }

    /// One that has ended, its instance with it.
    pub fn over() -> Self {
        Self { running: None, lease: None, taken: true }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.running.is_none()
    }

    /// Runs the guest as far as it goes. An error comes once.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(run) = &mut self.running else { return Poll::Ready(Ok(())) };
        let ended = ready!(run.as_mut().poll(context));
        self.running = None;
        self.lease = ended?;
        if self.taken {
            self.body_taken();
        }
        Poll::Ready(Ok(()))
    }

    /// All of the response was taken, or there is none: the instance may answer others when its run is over.
    pub fn body_taken(&mut self) {
        self.taken = true;
        if let Some(lease) = self.lease.take() {
            lease.keep();
        }
    }

    /// Ends the instance of a run that is over, and with it what it has left open. False where there is none.
    pub fn end_instance(&mut self) -> bool {
        self.lease.take().is_some()
    }

    /// Lets the guest go on after its response is complete. It keeps its guard, so that it counts as in flight.
    pub fn detach(&mut self) {
        self.body_taken();
        if let Some(run) = self.running.take() {
            tokio::spawn(async move {
                match run.await {
                    Ok(lease) => lease.into_iter().for_each(Lease::keep),
                    Err(error) => tracing::warn!(
                        reason = error.reason(),
                        detail = error.detail(),
                        "the guest failed after its response"
                    ),
                }
            });
        }
    }
}

/// How long a guest has had a thread. Counted when it ends, in whatever way.
pub struct Busy<'a> {
    time: Duration,
    metrics: &'a Metrics,
}

impl<'a> Busy<'a> {
    /// Of a guest that has had none.
    pub fn new(metrics: &'a Metrics) -> Self {
        Self { time: Duration::ZERO, metrics }
    }

    /// Gives it the thread.
    pub fn turn<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let polled = poll();
        self.time += started.elapsed();
        polled
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.metrics.guest_busy(self.time);
    }
}
