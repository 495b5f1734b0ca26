//! The run of one guest: a future that is polled by whoever wants something of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use super::pool::Lease;
use crate::error::Error;
use crate::telemetry::logs::{DETAIL_MAX, cut};
use crate::telemetry::metrics::Metrics;

type Running = Pin<Box<dyn Future<Output = Result<Option<Lease>, Error>> + Send>>;

/// The rest of a guest's run. Dropping it stops the guest; when it is over, polling it is free.
pub(crate) struct Run {
    running: Option<Running>,
    /// The instance of a run that is over, if it may answer others: but not before its body was taken.
    lease: Option<Lease>,
    taken: bool,
    /// Where a failure is counted that comes after the response.
    metrics: Option<Arc<Metrics>>,
}

impl Run {
    /// A run that begins with its first poll.
    pub(crate) fn new(run: impl Future<Output = Result<Option<Lease>, Error>> + Send + 'static) -> Self {
        Self { running: Some(Box::pin(run)), lease: None, taken: false, metrics: None }
    }

    /// The same run, whose failure after its response is counted.
    pub(crate) fn counted(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// One that has ended, its instance with it.
    pub(crate) fn over() -> Self {
        Self { running: None, lease: None, taken: true, metrics: None }
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.running.is_none()
    }

    /// Runs the guest as far as it goes. An error comes once.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(run) = &mut self.running else { return Poll::Ready(Ok(())) };
        let ended = ready!(run.as_mut().poll(context));
        self.running = None;
        self.lease = ended?;
        if self.taken {
            self.body_taken();
        }
        Poll::Ready(Ok(()))
    }

    /// The whole response was taken, or there is none: the instance may answer others when its run is over.
    pub(crate) fn body_taken(&mut self) {
        self.taken = true;
        if let Some(lease) = self.lease.take() {
            lease.keep();
        }
    }

    /// What the guest has waited for has come: often there is nothing more to do, and no task is needed for that.
    pub(crate) fn settle(&mut self) {
        if let Poll::Ready(Err(error)) = self.poll(&mut Context::from_waker(Waker::noop())) {
            self.failed_late(&error);
        }
    }

    /// Ends the instance of a run that is over, and with it what it has left open. False where there is none.
    pub(crate) fn end_instance(&mut self) -> bool {
        self.lease.take().is_some()
    }

    /// Lets the guest go on after its response is complete. It keeps its guard, so that it counts as in flight.
    pub(crate) fn detach(&mut self) {
        self.body_taken();
        if let Some(run) = self.running.take() {
            let metrics = self.metrics.clone();
            tokio::spawn(async move {
                match run.await {
                    Ok(lease) => lease.into_iter().for_each(Lease::keep),
                    Err(error) => report_late(metrics.as_deref(), &error),
                }
            });
        }
    }

    /// The run has failed, and its response goes out all the same.
    pub(crate) fn failed_late(&self, error: &Error) {
        report_late(self.metrics.as_deref(), error);
    }
}

fn report_late(metrics: Option<&Metrics>, error: &Error) {
    let (reason, detail) = (error.reason(), error.detail());
    if let Some(metrics) = metrics {
        metrics.guest_failed_late(reason);
    }
    tracing::warn!(reason, detail = &*cut(&detail, DETAIL_MAX), "the guest failed after its response");
}

/// Time for which a guest has had a thread, by the wall clock. Counted when it ends, in whatever way.
pub(crate) struct BusyTime<'a> {
    time: Duration,
    metrics: &'a Metrics,
}

impl<'a> BusyTime<'a> {
    /// A guest that has not run yet.
    pub(crate) fn new(metrics: &'a Metrics) -> Self {
        Self { time: Duration::ZERO, metrics }
    }

    /// Counts the time of a poll.
    pub(crate) fn turn<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let polled = poll();
        self.time += started.elapsed();
        polled
    }
}

impl Drop for BusyTime<'_> {
    fn drop(&mut self) {
        self.metrics.guest_busy(self.time);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn an_error_comes_once_and_then_the_run_is_over() {
        let mut run = Run::new(async { Err(Error::GuestNoResponse) });
        assert!(!run.is_over());
        let failed = poll_fn(|context| run.poll(context)).await;
        assert_eq!(failed.unwrap_err().reason(), "guest_no_response");
        assert!(run.is_over());
        assert!(poll_fn(|context| run.poll(context)).await.is_ok());
        assert!(!run.end_instance(), "a run that failed has no instance to give");
    }

    #[tokio::test]
    async fn a_run_that_is_dropped_stops_and_one_that_is_detached_goes_on() {
        for detached in [false, true] {
            let (dropped, stopped) = oneshot::channel::<()>();
            let (go_on, wait) = oneshot::channel::<()>();
            let mut run = Run::new(async move {
                let _ = wait.await;
                let _ = dropped.send(());
                Ok(None)
            });
            assert!(poll_fn(|context| Poll::Ready(run.poll(context))).await.is_pending());
            if detached {
                run.detach();
            }
            drop(run);
            assert_eq!(go_on.send(()).is_ok(), detached, "somebody still waits for it");
            assert_eq!(stopped.await.is_ok(), detached, "it came to its end");
        }
    }
}
