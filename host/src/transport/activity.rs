//! What a connection is doing: idle, reading a head, or busy with requests. The times that bound each are enforced where the
//! connection is driven; the requests and the socket report here.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::message_framing::{Refused, Why};

/// Shared by a connection, its socket and its requests.
#[derive(Debug)]
pub(crate) struct Activity {
    since: Instant,
    http2: bool,
    /// Requests whose response is not over.
    active: AtomicUsize,
    /// When the present wait began, in milliseconds after `since`.
    waiting: AtomicU64,
    /// Whether the wait is for the rest of a head, not for its first byte.
    head: AtomicBool,
    stalled: AtomicBool,
    /// Requests that have begun.
    begun: AtomicU64,
    /// From which of them on they are refused for their framing, for HTTP/1.1.
    refused: OnceLock<Refused>,
    /// Whether more of a request's body is to come, for HTTP/1.1.
    body: AtomicBool,
    /// The socket of a connection that has ended within a request.
    unread: Mutex<Option<TcpStream>>,
}

impl Activity {
    /// A new connection, which waits for its first head.
    pub(crate) fn new(http2: bool) -> Arc<Self> {
        Arc::new(Self {
            since: Instant::now(),
            http2,
            active: AtomicUsize::new(0),
            waiting: AtomicU64::new(0),
            head: AtomicBool::new(true),
            stalled: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            refused: OnceLock::new(),
            body: AtomicBool::new(false),
            unread: Mutex::new(None),
        })
    }

    /// A request was read.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Relaxed);
        self.active.fetch_add(1, Relaxed);
        self.head.store(false, Relaxed);
    }

    /// Its response is over.
    pub(crate) fn end(&self) {
        self.waiting.store(self.now(), Relaxed);
        self.active.fetch_sub(1, Relaxed);
    }

    /// Whether the client stopped reading, so that the connection was given up.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// When the present wait is too long: for a head since its first byte, or for the next request.
    pub(crate) fn deadline(&self, header_timeout: Duration, idle_timeout: Duration) -> Option<Instant> {
        if self.active.load(Relaxed) > 0 {
            return None;
        }
        let allowed = if self.head.load(Relaxed) { header_timeout } else { idle_timeout };
        Some(self.since + Duration::from_millis(self.waiting.load(Relaxed)) + allowed)
    }

    /// Whether the client speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2
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

    /// The socket has read something.
    pub(crate) fn received(&self) {
        if self.http2 || self.active.load(Relaxed) > 0 {
            return;
        }
        if !self.head.swap(true, Relaxed) {
            self.waiting.store(self.now(), Relaxed);
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
        let activity = Activity::new(false);
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
        let activity = Activity::new(false);
        activity.begin();
        activity.end();
        advance(Duration::from_secs(70)).await;
        activity.received();
        assert_eq!(left(&activity), Some(HEADER_TIMEOUT));
        advance(Duration::from_secs(3)).await;
        activity.received();
        assert_eq!(left(&activity), Some(HEADER_TIMEOUT - Duration::from_secs(3)), "a later byte buys no time");
    }

    #[test]
    fn requests_are_refused_from_the_one_on_that_the_framing_names() {
        let activity = Activity::new(false);
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
