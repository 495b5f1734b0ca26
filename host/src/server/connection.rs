//! One connection of the traffic listener: HTTP/1.1 or HTTP/2, told apart by its first bytes, and bounded in time
//! whatever its client does.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, Clock, Cut, Socket};
use crate::config::Limits;
use crate::metrics::Open;
use crate::record::Peer;
use crate::request::Requests;

/// What every HTTP/2 client sends first (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often to look again at a preface that has come only in part, which no honest client sends so.
const PREFACE_RETRY: Duration = Duration::from_millis(5);

/// At closing time: how long a connection without any request yet may take to show one. The kernel accepted it for us,
/// so its client may well have sent one.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// What hyper may buffer of a connection, in bytes. The limit of the head is checked with the request; twice as much
/// leaves room for that answer, and hyper's own 431 comes beyond it.
fn buffer_max(limits: &Limits) -> usize {
    (limits.max_header_size * 2).max(16 * 1024) // hyper takes no less than 8 KiB
}

/// HTTP/2: how much of a stream, and of all streams of a connection, a client may send ahead of the guest's reading.
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// HTTP/2: what is buffered of a response that the client does not read, in bytes.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;
/// HTTP/2: resets by the client that wait for us (CVE-2023-44487), and resets that it provoked (CVE-2025-8671), before
/// the connection is closed. hyper's own numbers, written down so that an upgrade cannot change them unseen.
const HTTP2_PENDING_RESETS: usize = 20;
const HTTP2_LOCAL_RESETS: usize = 1024;

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    client: SocketAddr,
    requests: Arc<Requests>,
    limits: Limits,
    closing: CancellationToken,
    first_request: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
    _open: Open,
}

impl Connection {
    /// `closing` asks every connection to end; `permit` counts this one.
    pub fn new(
        client: SocketAddr,
        requests: Arc<Requests>,
        limits: Limits,
        closing: CancellationToken,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let open = requests.metrics().connection_opened();
        Self { client, requests, limits, closing, first_request: Arc::default(), _permit: permit, _open: open }
    }

    /// Serves the connection until it ends.
    pub async fn serve(self, stream: TcpStream) {
        let limits = self.limits;
        let _ = stream.set_nodelay(true); // an answer is one write: waiting for more would only delay it
        let Ok(speaks_http2) = timeout(limits.header_timeout, speaks_http2(&stream)).await else { return };
        let activity = Activity::new(speaks_http2);
        let (requests, client, first) = (self.requests.clone(), self.client, self.first_request.clone());
        let busy = activity.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            first.notify_one();
            let requests = requests.clone();
            let peer = Peer::new(client, busy.clone());
            async move { requests.respond(peer, request).await }
        });
        let io = TokioIo::new(Socket::new(stream, activity.clone(), limits.write_timeout));
        let served = if speaks_http2 {
            let connection = http2(&limits).serve_connection(io, service);
            self.drive(&activity, connection, http2::Connection::graceful_shutdown).await
        } else {
            let connection = http1(&limits).serve_connection(io, service);
            self.drive(&activity, connection, http1::Connection::graceful_shutdown).await
        };
        if let Err(error) = served {
            tracing::debug!(client = %self.client, error = with_causes(&error), "connection");
        }
    }

    /// Runs the connection. When asked to close, or idle for too long, lets it finish what is in flight; drops it when
    /// its client stalls.
    async fn drive<C>(&self, activity: &Activity, connection: C, close: fn(Pin<&mut C>)) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let (mut reading, mut writing, cut) = (Clock::default(), Clock::default(), Arc::new(Cut::default()));
        let (header_timeout, idle_timeout) = (self.limits.header_timeout, self.limits.idle_timeout);
        let mut next = async |connection: &mut Pin<&mut C>| {
            poll_fn(|context| {
                if let Poll::Ready(ended) = cut.scope(|| connection.as_mut().poll(context)) {
                    return Poll::Ready(Event::Ended(ended));
                }
                // A busy connection is looked at again, because its last response may end on another task.
                let recheck = || Some(tokio::time::Instant::now() + idle_timeout);
                let waited = activity.deadline(header_timeout, idle_timeout);
                let lapsed = reading.poll(context, waited.or_else(recheck)).is_ready();
                if writing.poll_cut(context, &cut).is_ready() {
                    Poll::Ready(Event::Cut)
                } else if lapsed && waited.is_some() {
                    Poll::Ready(Event::Lapsed)
                } else {
                    Poll::Pending
                }
            })
            .await
        };
        let event = tokio::select! {
            event = next(&mut connection) => event,
            () = self.closing.cancelled() => Event::Closing,
        };
        match event {
            Event::Ended(ended) => return ended,
            Event::Cut => return Ok(()),
            Event::Lapsed => {
                close(connection.as_mut());
                // HTTP/2 says goodbye first; a client that does not even take that is dropped.
                let goodbye = timeout(header_timeout, connection);
                return goodbye.await.unwrap_or(Ok(()));
            }
            Event::Closing => {}
        }
        tokio::select! {
            biased;
            event = next(&mut connection) => return event.result(),
            () = self.first_request.notified() => {}
            () = sleep(FIRST_REQUEST_GRACE) => {}
        }
        close(connection.as_mut());
        next(&mut connection).await.result()
    }
}

/// What happens to a connection.
enum Event {
    Ended(hyper::Result<()>),
    /// It waits for its client for too long.
    Lapsed,
    /// Its client does not read a response.
    Cut,
    Closing,
}

impl Event {
    fn result(self) -> hyper::Result<()> {
        match self {
            Self::Ended(ended) => ended,
            _ => Ok(()),
        }
    }
}

fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Activity bounds the time of a head; hyper's own clock, which would bound idle time by the same number, is off.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(buffer_max(limits))
        .max_headers(limits.max_headers * 2);
    builder
}

fn http2(limits: &Limits) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_max_streams)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_LOCAL_RESETS)
        .max_header_list_size(u32::try_from(buffer_max(limits)).unwrap_or(u32::MAX))
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_send_buf_size(HTTP2_SEND_BUFFER);
    builder
}

/// Runs each stream of HTTP/2 as a task, and ends the task when its response is to be cut: the stream is reset then.
#[derive(Debug, Clone, Copy)]
struct StreamExecutor;

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let cut = Arc::new(Cut::default());
        let mut clock = Clock::default();
        tokio::spawn(async move {
            let mut stream = pin!(stream);
            poll_fn(|context| match cut.scope(|| stream.as_mut().poll(context)) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => clock.poll_cut(context, &cut),
            })
            .await;
        });
    }
}

/// Whether the client starts with the preface of HTTP/2. Nothing is consumed.
async fn speaks_http2(stream: &TcpStream) -> bool {
    let mut start = [0; HTTP2_PREFACE.len()];
    loop {
        match stream.peek(&mut start).await {
            Ok(count) if count == start.len() => return start == HTTP2_PREFACE,
            Ok(count) if count > 0 && HTTP2_PREFACE.starts_with(&start[..count]) => sleep(PREFACE_RETRY).await,
            _ => return false, // HTTP/1, or nothing at all: hyper will find out
        }
    }
}

/// An error with its causes, which hyper leaves out of its own text.
fn with_causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
