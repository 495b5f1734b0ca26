//! Deadlines of what is polled from outside: hyper asks a body for nothing while its client reads nothing, so the task around
//! it keeps the time.

use std::any::Any;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    /// The abort time of the response that the running task polls.
    static ABORT_TIME: Arc<AbortTime>;
}

/// When a response that its client does not read is aborted. hyper asks a body for nothing while the client takes nothing,
/// so no clock inside the body can end it: the task around it does ([`Waiting`](super::unsent::Waiting)).
#[derive(Debug, Default)]
pub(crate) struct AbortTime(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What went out last, while its client is waited for.
    sent: Option<Sent>,
    /// Frames that went out.
    frames: u64,
    /// What the response holds beside its bytes: the request's slot.
    slot: Option<Arc<dyn Any + Send + Sync>>,
    aborted: bool,
}

/// A frame that was handed to hyper, and the client has not asked for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// When the client has waited too long.
    pub(crate) at: Instant,
    /// Which of the response's frames it is, counted from 1.
    pub(crate) frame: u64,
    /// Its bytes and all that come after it, where nobody has anything left to do but the client.
    pub(crate) left: Option<usize>,
}

impl AbortTime {
    /// That of the running task.
    pub(crate) fn current() -> Arc<Self> {
        ABORT_TIME.try_with(Arc::clone).unwrap_or_default()
    }

    /// A frame goes out, and is to be taken until then. With `left`, that is what the client has still to take in all, in bytes:
    /// then `slot` may go as soon as they are charged to another account.
    pub(crate) fn sent(&self, at: Instant, left: Option<usize>, slot: &mut Option<Arc<impl Any + Send + Sync>>) {
        let mut state = self.state();
        state.frames += 1;
        state.sent = Some(Sent { at, frame: state.frames, left });
        if let Some(slot) = left.and_then(|_| slot.take()) {
            state.slot = Some(slot);
        }
    }

    /// The client is waited for no longer: the guest is, or the response is over.
    pub(crate) fn lift(&self) {
        self.state().sent = None;
    }

    /// The response is over, and holds nothing any more.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.sent = None;
        let slot = state.slot.take();
        drop((state, slot)); // in this order: what a slot does at its end is not done under the lock
    }

    /// Lets go of the slot: what is left is charged to another account.
    pub(crate) fn release_slot(&self) {
        let slot = self.state().slot.take();
        drop(slot);
    }

    /// What the client is waited for.
    pub(crate) fn waits_for(&self) -> Option<Sent> {
        self.state().sent
    }

    /// Makes it no later than this, where the client is waited for.
    pub(crate) fn shorten(&self, at: Instant) {
        if let Some(sent) = &mut self.state().sent {
            sent.at = sent.at.min(at);
        }
    }

    /// Whether the time is past.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.waits_for().is_some_and(|sent| sent.at <= now)
    }

    /// The response is aborted now.
    pub(crate) fn abort(&self) {
        self.state().aborted = true;
    }

    /// Whether the response was aborted, and did not end by itself.
    pub(crate) fn is_aborted(&self) -> bool {
        self.state().aborted
    }

    /// Polls work whose responses this time is for: [`AbortTime::current`] is this one within.
    pub(crate) fn scope<T>(self: &Arc<Self>, poll: impl FnOnce() -> T) -> T {
        ABORT_TIME.sync_scope(self.clone(), poll)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut slot = Some(Arc::new(()));
        inner.sent(Instant::now(), None, &mut slot);
        assert!(outer.is_due(Instant::now()));
        assert!(slot.is_some(), "somebody has still to make what comes next");
        outer.lift();
        assert!(!inner.is_due(Instant::now()));
        AbortTime::current().sent(Instant::now(), None, &mut slot);
        assert!(!outer.is_due(Instant::now()), "outside of a scope it is nobody's");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_held_until_it_is_released_or_the_response_is_over() {
        for release in [AbortTime::release_slot, AbortTime::end] {
            let (time, slot) = (AbortTime::default(), Arc::new(()));
            let mut share = Some(slot.clone());
            time.sent(Instant::now(), Some(7), &mut share);
            assert!(share.is_none(), "it is the time's");
            time.sent(Instant::now(), Some(5), &mut share);
            assert_eq!(time.waits_for().map(|sent| (sent.frame, sent.left)), Some((2, Some(5))));
            assert_eq!(Arc::strong_count(&slot), 2);
            release(&time);
            assert_eq!(Arc::strong_count(&slot), 1);
        }
    }
}
