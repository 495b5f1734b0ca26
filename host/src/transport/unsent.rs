//! Answers that are ready and that their clients do not take: how long they may wait, and how much of them.
//!
//! Such an answer needs no guest, so it gives its slot back; what it holds is charged to the account of this file, which is bounded.
//! Where the account is full, an answer of which nothing was taken for the longest time makes room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::deadline::{AbortTime, LazyTimer};

/// What an answer that waits costs beside its bytes: a task, a stream's state in hyper and h2 (9 KiB were measured), the record.
const ANSWER_COST: usize = 16 * 1024;

/// How long nothing of an answer may be taken before it makes room for another. Who reads, however slowly, takes a piece in that
/// time; and slots are held for nothing no longer than that, however many clients take nothing.
const ROOM_AFTER: Duration = Duration::from_secs(1);
/// How often an answer that found no room asks again.
const RETRY: Duration = Duration::from_millis(250);

/// How long nothing of an answer may be taken once the host is asked to end.
const CLOSING: Duration = Duration::from_secs(5);

/// The account of all answers that wait for their clients.
#[derive(Debug)]
pub(crate) struct Unsent {
    /// In bytes.
    budget: usize,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    bytes: usize,
    /// In the order in which their present wait has begun.
    waiting: BTreeMap<u64, Answer>,
    next: u64,
    closing: bool,
}

#[derive(Debug)]
struct Answer {
    bytes: usize,
    since: Instant,
    abort_time: Arc<AbortTime>,
    task: Waker,
}

impl Unsent {
    /// An account of so many bytes.
    pub(crate) fn new(budget: usize) -> Arc<Self> {
        Arc::new(Self { budget, account: Mutex::default() })
    }

    /// How many answers wait on this account.
    pub(crate) fn count(&self) -> usize {
        self.account().waiting.len()
    }

    /// From now on an answer has [`CLOSING`] at the most.
    pub(crate) fn close(&self) {
        let mut account = self.account();
        account.closing = true;
        let until = Instant::now() + CLOSING;
        for answer in account.waiting.values() {
            answer.abort_time.shorten(until);
            answer.task.wake_by_ref();
        }
    }

    /// Charges an answer, of which so many bytes are left, if there is room for it.
    fn charge(self: &Arc<Self>, left: usize, abort_time: &Arc<AbortTime>, task: &Waker) -> Option<Place> {
        let (bytes, now) = (left + ANSWER_COST, Instant::now());
        let mut account = self.account();
        if account.closing {
            abort_time.shorten(now + CLOSING);
        }
        while account.bytes + bytes > self.budget {
            let oldest = account.waiting.first_entry().filter(|oldest| oldest.get().since + ROOM_AFTER <= now)?;
            let oldest = oldest.remove();
            account.bytes -= oldest.bytes;
            oldest.abort_time.shorten(now);
            oldest.task.wake();
        }
        account.bytes += bytes;
        let number = account.next;
        account.next += 1;
        let answer = Answer { bytes, since: now, abort_time: abort_time.clone(), task: task.clone() };
        account.waiting.insert(number, answer);
        Some(Place { unsent: self.clone(), number })
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer's place in the account.
#[derive(Debug)]
struct Place {
    unsent: Arc<Unsent>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut account = self.unsent.account();
        if let Some(answer) = account.waiting.remove(&self.number) {
            account.bytes -= answer.bytes;
        }
    }
}

/// Keeps the time of responses for the task that polls them. Nothing is charged and no timer is set before a client is waited for.
#[derive(Debug)]
pub(crate) struct Waiting {
    unsent: Arc<Unsent>,
    abort_time: Arc<AbortTime>,
    timer: LazyTimer,
    /// The frame that is waited for, and its place if there was room.
    frame: u64,
    place: Option<Place>,
    retry: Option<Instant>,
}

impl Waiting {
    /// For the responses of one task.
    pub(crate) fn new(unsent: Arc<Unsent>) -> Self {
        let (abort_time, timer) = (Arc::default(), LazyTimer::default());
        Self { unsent, abort_time, timer, frame: 0, place: None, retry: None }
    }

    /// Polls the work whose responses these are.
    pub(crate) fn scope<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.abort_time.scope(poll)
    }

    /// Another task polls from now on, and is to be woken.
    pub(crate) fn change_task(&mut self) {
        self.frame = 0;
    }

    /// Call it when the work is pending: ready when it is to be dropped, because its client takes nothing.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(sent) = self.abort_time.waits_for() else {
            self.place = None;
            self.frame = 0;
            return Poll::Pending;
        };
        if self.frame != sent.frame {
            self.frame = sent.frame;
            self.retry = None;
            self.place = None; // it begins to wait anew
            self.charge(sent.left, context);
        }
        // A turn more where its time is over to ask again; no more, since that time is a later one then.
        for _ in 0..2 {
            let Some(sent) = self.abort_time.waits_for() else { return Poll::Pending };
            let due = self.retry.map_or(sent.at, |retry| retry.min(sent.at));
            if self.timer.poll(context, Some(due)).is_pending() {
                return Poll::Pending;
            }
            if sent.at <= Instant::now() {
                self.abort_time.abort();
                return Poll::Ready(());
            }
            self.charge(sent.left, context);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Charges what is left, if nobody but the client has anything left to do, and gives the slot back for it.
    fn charge(&mut self, left: Option<usize>, context: &Context<'_>) {
        self.place = left.and_then(|left| self.unsent.charge(left, &self.abort_time, context.waker()));
        if self.place.is_some() {
            self.abort_time.release_slot();
        }
        self.retry = (left.is_some() && self.place.is_none()).then(|| Instant::now() + RETRY);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// The task of an answer with so many bytes left, which waits, and the slot that it has.
    async fn waiting(unsent: &Arc<Unsent>, left: Option<usize>) -> (Waiting, Arc<()>) {
        let (mut waiting, slot) = (Waiting::new(unsent.clone()), Arc::new(()));
        waiting.abort_time.sent(Instant::now() + MINUTE, left, &mut Some(slot.clone()));
        assert!(poll(&mut waiting).await.is_pending());
        (waiting, slot)
    }

    async fn poll(waiting: &mut Waiting) -> Poll<()> {
        poll_fn(|context| Poll::Ready(waiting.poll(context))).await
    }

    fn is_free(slot: &Arc<()>) -> bool {
        Arc::strong_count(slot) == 1
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_made_gives_its_slot_back_while_it_waits() {
        let unsent = Unsent::new(ANSWER_COST + 100);
        let (made, slot) = waiting(&unsent, Some(100)).await;
        assert!(is_free(&slot));
        assert_eq!((unsent.count(), unsent.account().bytes), (1, ANSWER_COST + 100));
        drop(made);
        assert_eq!((unsent.count(), unsent.account().bytes), (0, 0));
        let (_unmade, slot) = waiting(&unsent, None).await;
        assert_eq!(unsent.count(), 0);
        drop(slot); // it never was the answer's
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_waited_for_until_its_time_is_over() {
        let unsent = Unsent::new(ANSWER_COST);
        let (mut answer, _slot) = waiting(&unsent, Some(0)).await;
        let since = Instant::now();
        poll_fn(|context| answer.poll(context)).await;
        assert_eq!(since.elapsed(), MINUTE);
        assert!(answer.abort_time.is_aborted());
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_account_is_full_the_longest_untaken_makes_room_after_a_second_and_not_before() {
        let unsent = Unsent::new(2 * ANSWER_COST);
        let (mut first, _slot) = waiting(&unsent, Some(0)).await;
        advance(ROOM_AFTER / 4).await;
        let (mut second, _slot) = waiting(&unsent, Some(0)).await;
        // Something of the first one is taken: from now on the second is the longest untaken.
        advance(ROOM_AFTER / 4).await;
        first.abort_time.sent(Instant::now() + MINUTE, Some(0), &mut None::<Arc<()>>);
        assert!(poll(&mut first).await.is_pending());
        let (mut third, slot) = waiting(&unsent, Some(0)).await;
        assert!(!is_free(&slot), "there is no room yet");
        let since = Instant::now();
        let asked_again = poll_fn(|context| match third.poll(context) {
            Poll::Pending if is_free(&slot) => Poll::Ready(()),
            other => other,
        });
        asked_again.await;
        assert!(since.elapsed() <= ROOM_AFTER, "{:?}", since.elapsed());
        assert!(poll(&mut second).await.is_ready(), "it has made room");
        assert!(poll(&mut first).await.is_pending() && poll(&mut third).await.is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_of_the_host_nobody_is_waited_for_longer_than_a_few_seconds() {
        let unsent = Unsent::new(2 * ANSWER_COST);
        let (mut before, _slot) = waiting(&unsent, Some(0)).await;
        unsent.close();
        let (mut after, _slot) = waiting(&unsent, Some(0)).await;
        let since = Instant::now();
        poll_fn(|context| before.poll(context)).await;
        poll_fn(|context| after.poll(context)).await;
        assert_eq!(since.elapsed(), CLOSING);
    }
}
