//! What a connection is doing: idle, reading a head, or busy with requests. The times that bound each are enforced where the
//! connection is driven; the requests and the socket report here.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::message_framing::{Refused, Why};

/// Shared by a connection, its socket and its requests.
#[derive(Debug)]
pub(crate) struct Activity {
    /// When it was accepted.
    since: Instant,
    http2: AtomicBool,
    /// Requests whose response is not over.
    active: AtomicUsize,
    /// When the connection was last busy, in milliseconds after `since`.
    idle: AtomicU64,
    /// When the head that is waited for has begun, in the same milliseconds and one more; 0 where none has. The first one is waited
    /// for from the start.
    head: AtomicU64,
    /// Whether what was received ends within a head.
    within_head: AtomicBool,
    /// Pieces that the socket took, and whether it takes none now.
    written: AtomicU64,
    blocked: AtomicBool,
    stalled: AtomicBool,
    /// Requests that have begun.
    begun: AtomicU64,
    /// From which of them on they are refused for their framing, for HTTP/1.1.
    refused: OnceLock<Refused>,
    /// Whether more of a request's body is to come, for HTTP/1.1.
    body: AtomicBool,
    /// The socket of a connection that has ended within a request.
    unread: Mutex<Option<TcpStream>>,
    /// Another connection needs the place of this one.
    room: Notify,
    /// What was read since the connection was polled last, in bytes, for HTTP/2.
    turn: AtomicUsize,
}

/// What is read of HTTP/2 before what has come is answered, in bytes: a head takes up to a hundred times as much memory as it has bytes.
const TURN: usize = 32 * 1024;

impl Activity {
    /// A connection that is accepted now, and waits for its first head.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            since: Instant::now(),
            http2: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            idle: AtomicU64::new(0),
            head: AtomicU64::new(1),
            within_head: AtomicBool::new(false),
            written: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            refused: OnceLock::new(),
            body: AtomicBool::new(false),
            unread: Mutex::new(None),
            room: Notify::new(),
            turn: AtomicUsize::new(0),
        })
    }

    /// A request was read.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Relaxed);
        self.active.fetch_add(1, Relaxed);
        self.head.store(0, Relaxed);
    }

    /// Its response is over. A head that has begun behind it has its time from now on: nobody has read it before.
    pub(crate) fn end(&self) {
        let now = self.now();
        self.idle.store(now, Relaxed);
        self.head.store(if self.within_head.load(Relaxed) { now + 1 } else { 0 }, Relaxed);
        self.active.fetch_sub(1, Relaxed);
    }

    /// Whether the client stopped reading, so that the connection was given up.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// When the present wait is too long: for a head since its first byte (since the connection was accepted for the first), or for
    /// the next request.
    pub(crate) fn deadline(&self, header_timeout: Duration, idle_timeout: Duration) -> Option<Instant> {
        if self.active.load(Relaxed) > 0 {
            return None;
        }
        Some(match self.head.load(Relaxed) {
            0 => self.idle_since() + idle_timeout,
            head => self.since + Duration::from_millis(head - 1) + header_timeout,
        })
    }

    /// Since when it waits for its client: for a request, or for the rest of a head. `None` while it answers.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.deadline(Duration::ZERO, Duration::ZERO)
    }

    /// Asks it to end, for the sake of another.
    pub(crate) fn ask_for_room(&self) {
        self.room.notify_one();
    }

    /// Waits until somebody asks for that.
    pub(crate) async fn asked_for_room(&self) {
        self.room.notified().await;
    }

    /// The connection is polled.
    pub(crate) fn begin_turn(&self) {
        self.turn.store(0, Relaxed);
    }

    /// Whether it has read enough for one turn, and is to answer first.
    pub(crate) fn has_read_enough(&self) -> bool {
        self.is_http2() && self.turn.load(Relaxed) >= TURN
    }

    /// So much was read in this turn.
    pub(crate) fn read(&self, bytes: usize) {
        self.turn.store(self.turn.load(Relaxed) + bytes, Relaxed); // by one task alone
    }

    /// When the connection was accepted.
    pub(crate) fn accepted(&self) -> Instant {
        self.since
    }

    /// When its last response was over.
    pub(crate) fn idle_since(&self) -> Instant {
        self.since + Duration::from_millis(self.idle.load(Relaxed))
    }

    /// Whether what was received ends within a head.
    pub(crate) fn is_within_head(&self) -> bool {
        self.within_head.load(Relaxed)
    }

    /// Whether the time of a head goes by: of the first one, or of one that has begun.
    pub(crate) fn waits_for_head(&self) -> bool {
        self.head.load(Relaxed) > 0
    }

    /// The socket took something.
    pub(crate) fn written(&self) {
        self.written.store(self.written.load(Relaxed).wrapping_add(1), Relaxed); // by one task alone
    }

    /// Changes whenever the socket takes something.
    pub(crate) fn progress(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// The socket takes nothing, or something again.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Relaxed);
    }

    /// Whether something is to be written that the socket does not take.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// Whether the client speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// The client speaks HTTP/2.
    pub(crate) fn set_http2(&self) {
        self.http2.store(true, Relaxed);
    }

    /// Requests are refused for their framing from one on.
    pub(crate) fn refuse(&self, refused: Refused) {
        let _ = self.refused.set(refused); // the first stands
    }

    /// Why the request that has begun last is refused for its head or its framing.
    pub(crate) fn refusal(&self) -> Option<Why> {
        self.refused.get().filter(|refused| refused.from < self.begun.load(Relaxed)).map(|refused| refused.why)
    }

    /// Whether more of a request's body is to come, which a client may be sending now.
    pub(crate) fn is_body_open(&self) -> bool {
        self.body.load(Relaxed)
    }

    /// What the socket has read ends within a request's body, or it does not.
    pub(crate) fn set_body_open(&self, open: bool) {
        self.body.store(open, Relaxed);
    }

    /// The connection has ended with all that it had to say, within a request: this socket still has something to read.
    pub(crate) fn leave_unread(&self, stream: TcpStream) {
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    /// The socket of a connection that has ended within a request.
    pub(crate) fn take_unread(&self) -> Option<TcpStream> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The client stopped reading: the connection is given up.
    pub(crate) fn stalled(&self) {
        self.stalled.store(true, Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The socket has read something, which ends within a head or does not. What comes of a body after its answer is no head.
    pub(crate) fn received(&self, within_head: bool) {
        self.within_head.store(within_head, Relaxed);
        if self.active.load(Relaxed) > 0 {
            return;
        }
        let waited_for = self.head.load(Relaxed) > 0;
        if within_head && !waited_for {
            self.head.store(self.now() + 1, Relaxed);
        } else if !within_head && self.begun.load(Relaxed) > 0 {
            self.head.store(0, Relaxed); // a whole one begins a request at once; HTTP/2 has frames of other kinds, too
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
    const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

    fn left(activity: &Activity) -> Option<Duration> {
        activity.deadline(HEADER_TIMEOUT, IDLE_TIMEOUT).map(|at| at - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_has_the_time_of_a_head_and_a_busy_one_has_no_end() {
        let activity = Activity::new();
        assert_eq!(left(&activity), Some(HEADER_TIMEOUT));
        advance(Duration::from_secs(4)).await;
        assert_eq!(left(&activity), Some(Duration::from_secs(6)));
        activity.begin();
        activity.begin();
        assert_eq!(left(&activity), None);
        activity.end();
        assert_eq!(left(&activity), None, "one of two requests is still there");
        activity.end();
        assert_eq!(left(&activity), Some(IDLE_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte() {
        let activity = Activity::new();
        activity.begin();
        activity.end();
        advance(Duration::from_secs(70)).await;
        activity.received(true);
        assert_eq!(left(&activity), Some(HEADER_TIMEOUT));
        advance(Duration::from_secs(3)).await;
        activity.received(true);
        assert_eq!(left(&activity), Some(HEADER_TIMEOUT - Duration::from_secs(3)), "a later byte buys no time");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_head_has_its_time_from_the_start_whatever_comes_before_it() {
        let activity = Activity::new();
        advance(Duration::from_secs(4)).await;
        activity.received(true);
        activity.received(false); // settings of HTTP/2
        assert_eq!(left(&activity), Some(Duration::from_secs(6)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_begins_behind_an_answer_has_its_time_from_the_end_of_that() {
        let activity = Activity::new();
        activity.begin();
        activity.received(true);
        advance(Duration::from_secs(20)).await;
        assert_eq!(left(&activity), None);
        activity.end();
        assert_eq!(left(&activity), Some(HEADER_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_of_a_body_after_its_answer_is_no_head() {
        let activity = Activity::new();
        activity.begin();
        activity.end();
        advance(Duration::from_secs(5)).await;
        activity.received(false);
        assert_eq!(left(&activity), Some(IDLE_TIMEOUT - Duration::from_secs(5)));
    }

    #[test]
    fn requests_are_refused_from_the_one_on_that_the_framing_names() {
        let activity = Activity::new();
        activity.begin();
        activity.refuse(Refused { from: 1, why: Why::Framing("first") });
        activity.refuse(Refused { from: 0, why: Why::TooLarge });
        assert_eq!(activity.refusal(), None, "the request before is as good as it was");
        activity.end();
        for _ in 0..2 {
            activity.begin();
            assert_eq!(activity.refusal(), Some(Why::Framing("first")));
        }
    }
}
