//! What a connection is doing: waiting, reading a head, or busy. The times that bound each are enforced where the
//! connection is driven; the requests and the socket report here.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes of a head that are kept to look for conflicting lengths. A larger head is refused anyway.
const HEARD_MAX: usize = 64 * 1024;

/// Shared by a connection, its socket and its requests.
#[derive(Debug)]
pub struct Activity {
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
    heard: Mutex<Vec<u8>>,
}

impl Activity {
    /// A new connection, which waits for its first head.
    pub fn new(http2: bool) -> Arc<Self> {
        Arc::new(Self {
            since: Instant::now(),
            http2,
            active: AtomicUsize::new(0),
            waiting: AtomicU64::new(0),
            head: AtomicBool::new(true),
            stalled: AtomicBool::new(false),
            heard: Mutex::default(),
        })
    }

    /// A request was read.
    pub fn begin(&self) {
        self.active.fetch_add(1, Relaxed);
        self.head.store(false, Relaxed);
    }

    /// Its response is over. Its head is forgotten, so that it cannot vouch for the next one.
    pub fn end(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.waiting.store(self.now(), Relaxed);
        self.active.fetch_sub(1, Relaxed);
    }

    /// Whether the client stopped reading, so that the connection was given up.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// When the present wait is too long: for a head since its first byte, or for the next request.
    pub fn deadline(&self, header_timeout: Duration, idle_timeout: Duration) -> Option<Instant> {
        if self.active.load(Relaxed) > 0 {
            return None;
        }
        let allowed = if self.head.load(Relaxed) { header_timeout } else { idle_timeout };
        Some(self.since + Duration::from_millis(self.waiting.load(Relaxed)) + allowed)
    }

    /// What speaks against taking a chunked HTTP/1.1 request: a `Content-Length` as well, which hyper removes, since two
    /// lengths are how requests are smuggled (RFC 9112, 6.1), or a head that was not seen as it came, because it was sent
    /// before the answer to the one before, or is too large to be kept.
    pub fn length_conflict(&self) -> Option<&'static str> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).to_ascii_lowercase();
        let has_line = |name: &[u8]| heard.windows(name.len()).any(|window| window == name);
        if heard.len() >= HEARD_MAX || !has_line(b"\ntransfer-encoding:") {
            return Some("A chunked request must wait for the answer to the one before.");
        }
        has_line(b"\ncontent-length:").then_some("Transfer-Encoding and Content-Length exclude each other.")
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn received(&self, bytes: &[u8]) {
        if bytes.is_empty() || self.http2 || self.active.load(Relaxed) > 0 {
            return;
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.head.swap(true, Relaxed) {
            self.waiting.store(self.now(), Relaxed);
        }
        let room = HEARD_MAX.saturating_sub(heard.len());
        heard.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// The socket of a connection. Reports what is received, and gives up a client that takes nothing for too long.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    activity: Arc<Activity>,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// `write_timeout` is how long a client may take nothing of what is ready for it.
    pub fn new(stream: TcpStream, activity: Arc<Activity>, write_timeout: Duration) -> Self {
        Self { stream, activity, write_timeout, stalled: None }
    }

    fn bounded<T>(&mut self, context: &mut Context<'_>, write: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if write.is_ready() {
            self.stalled = None;
            return write;
        }
        let patience = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        if stalled.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.activity.stalled.store(true, Relaxed);
        Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.activity.received(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

tokio::task_local! {
    /// Of the task that polls a response.
    static CUT: Arc<Cut>;
}

/// When a response that its client does not read is cut. hyper asks a body for nothing while the client takes nothing,
/// so no clock inside the body can end it: the task around it does.
#[derive(Debug, Default)]
pub struct Cut(Mutex<Option<Instant>>);

impl Cut {
    /// The cut of the task that runs now.
    pub fn current() -> Arc<Self> {
        CUT.try_with(Arc::clone).unwrap_or_default()
    }

    /// Sets the time, or with `None` lifts it.
    pub fn set(&self, at: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn at(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the time is past.
    pub fn is_due(&self, now: Instant) -> bool {
        self.at().is_some_and(|at| at <= now)
    }

    /// Polls work whose responses this cut belongs to.
    pub fn scope<T>(self: &Arc<Self>, poll: impl FnOnce() -> T) -> T {
        CUT.sync_scope(self.clone(), poll)
    }
}

/// A clock for a task that polls work: it looks at `due` whenever the task is polled, and wakes the task only if that
/// time comes. Work that is finished before costs no timer.
#[derive(Debug, Default)]
pub struct Clock(Option<Pin<Box<Sleep>>>);

impl Clock {
    /// Ready when the time is past.
    pub fn poll(&mut self, context: &mut Context<'_>, due: Option<Instant>) -> Poll<()> {
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

    /// Ready when the cut is due.
    pub fn poll_cut(&mut self, context: &mut Context<'_>, cut: &Cut) -> Poll<()> {
        self.poll(context, cut.at())
    }
}
