//! What a connection is doing: idle, reading a head, or busy with requests. The times that bound each are enforced where the
//! connection is driven; the requests and the socket report here.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes of a head that are kept to look for conflicting lengths. A larger head is refused by the default limits anyway.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;

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
    /// The raw bytes of the head, for HTTP/1.1.
    head_bytes: Mutex<Vec<u8>>,
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
            head_bytes: Mutex::default(),
        })
    }

    /// A request was read.
    pub(crate) fn begin(&self) {
        self.active.fetch_add(1, Relaxed);
        self.head.store(false, Relaxed);
    }

    /// Its response is over. Its head is forgotten, so that it cannot vouch for the next one.
    pub(crate) fn end(&self) {
        self.lock_head_bytes().clear();
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

    /// The raw bytes of the HTTP/1.1 head that was read last, the first [`HEAD_BYTES_MAX`] of them. Nothing where the request
    /// was sent before the answer to the one before.
    pub(crate) fn head_bytes(&self) -> Vec<u8> {
        self.lock_head_bytes().clone()
    }

    /// The client stopped reading: the connection is given up.
    pub(crate) fn stalled(&self) {
        self.stalled.store(true, Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The socket has read these bytes.
    pub(crate) fn received(&self, bytes: &[u8]) {
        if bytes.is_empty() || self.http2 || self.active.load(Relaxed) > 0 {
            return;
        }
        let mut head = self.lock_head_bytes();
        if !self.head.swap(true, Relaxed) {
            self.waiting.store(self.now(), Relaxed);
        }
        let room = HEAD_BYTES_MAX.saturating_sub(head.len());
        head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn lock_head_bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.head_bytes.lock().unwrap_or_else(PoisonError::into_inner)
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
        activity.received(b"GET / HT");
        assert_eq!(left(&activity), Some(HEADER_TIMEOUT));
        advance(Duration::from_secs(3)).await;
        activity.received(b"TP/1.1\r\n");
        assert_eq!(left(&activity), Some(HEADER_TIMEOUT - Duration::from_secs(3)), "a later byte buys no time");
    }

    #[tokio::test(start_paused = true)]
    async fn the_bytes_of_a_head_are_kept_for_its_own_request_alone() {
        let activity = Activity::new(false);
        activity.received(b"GET / HTTP/1.1\r\n");
        activity.received(b"\r\n");
        activity.begin();
        activity.received(b"GET /pipelined HTTP/1.1\r\n\r\n");
        assert_eq!(activity.head_bytes(), b"GET / HTTP/1.1\r\n\r\n", "what is sent meanwhile is of another head");
        activity.end();
        assert!(activity.head_bytes().is_empty());
        activity.received(&vec![b'a'; 2 * HEAD_BYTES_MAX]);
        assert_eq!(activity.head_bytes().len(), HEAD_BYTES_MAX);
        let http2 = Activity::new(true);
        http2.received(b"frames");
        assert!(http2.head_bytes().is_empty());
    }
}
