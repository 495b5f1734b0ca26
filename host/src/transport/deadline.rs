//! Deadlines of what is polled from outside: hyper asks a body for nothing while its client reads nothing, so the task around
//! it keeps the time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    /// The abort time of the response that the running task polls.
    static ABORT_TIME: Arc<AbortTime>;
}

/// When a response that its client does not read is aborted. hyper asks a body for nothing while the client takes nothing,
/// so no clock inside the body can end it: the task around it does.
#[derive(Debug, Default)]
pub(crate) struct AbortTime(Mutex<Option<Instant>>);

impl AbortTime {
    /// That of the running task.
    pub(crate) fn current() -> Arc<Self> {
        ABORT_TIME.try_with(Arc::clone).unwrap_or_default()
    }

    /// Sets the time, or with `None` lifts it.
    pub(crate) fn set(&self, at: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn at(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the time is past.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.at().is_some_and(|at| at <= now)
    }

    /// Polls work whose responses this time is for: [`AbortTime::current`] is this one within.
    pub(crate) fn scope<T>(self: &Arc<Self>, poll: impl FnOnce() -> T) -> T {
        ABORT_TIME.sync_scope(self.clone(), poll)
    }
}

/// A timer for a task that polls work: it looks at `due` whenever the task is polled, and is registered with the runtime
/// at the first wait alone. Work that never waits costs no timer.
#[derive(Debug, Default)]
pub(crate) struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Ready when the time is past.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, due: Option<Instant>) -> Poll<()> {
        let Some(due) = due else { return Poll::Pending };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due); // it was set for an earlier time, which has moved
        }
        Poll::Pending
    }

    /// Ready when the response is to be aborted.
    pub(crate) fn poll_abort(&mut self, context: &mut Context<'_>, time: &AbortTime) -> Poll<()> {
        self.poll(context, time.at())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_follows_its_time_wherever_that_moves() {
        let (started, mut timer, second) = (Instant::now(), LazyTimer::default(), Duration::from_secs(1));
        let mut due = started + 5 * second;
        assert!(poll_fn(|context| Poll::Ready(timer.poll(context, Some(due)))).await.is_pending());
        due = started + 2 * second; // earlier
        poll_fn(|context| timer.poll(context, Some(due))).await;
        assert_eq!(started.elapsed(), 2 * second);
        due = started + 9 * second; // later
        poll_fn(|context| timer.poll(context, Some(due))).await;
        assert_eq!(started.elapsed(), 9 * second);
        assert!(poll_fn(|context| Poll::Ready(timer.poll(context, None))).await.is_pending(), "none is never");
    }

    #[tokio::test(start_paused = true)]
    async fn the_abort_time_is_that_of_the_task_around() {
        let outer = Arc::new(AbortTime::default());
        let inner = outer.scope(AbortTime::current);
        inner.set(Some(Instant::now()));
        assert!(outer.is_due(Instant::now()));
        outer.set(None);
        assert!(!inner.is_due(Instant::now()));
        AbortTime::current().set(Some(Instant::now()));
        assert!(!outer.is_due(Instant::now()), "outside of a scope it is nobody's");
    }
}
