//! One connection of the traffic listener: HTTP/1.1 or HTTP/2, told apart by its first bytes.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::request::Requests;

/// What every HTTP/2 client sends first (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may take to send a request's head.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How often to look again at a preface that has come only in part, which no honest client sends so.
const PREFACE_RETRY: Duration = Duration::from_millis(5);

/// At closing time: how long a connection without any request yet may take to show one. The kernel accepted it for us,
/// so its client may well have sent one.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    client: SocketAddr,
    requests: Arc<Requests>,
    closing: CancellationToken,
    first_request: Arc<Notify>,
}

impl Connection {
    /// `closing` asks every connection to end.
    pub fn new(client: SocketAddr, requests: Arc<Requests>, closing: CancellationToken) -> Self {
        Self { client, requests, closing, first_request: Arc::default() }
    }

    /// Serves the connection until it ends.
    pub async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true); // an answer is one write: waiting for more would only delay it
        let Ok(speaks_http2) = timeout(HEADER_READ_TIMEOUT, speaks_http2(&stream)).await else { return };
        let (requests, client, first) = (self.requests.clone(), self.client, self.first_request.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            first.notify_one();
            let requests = requests.clone();
            async move { requests.respond(client, request).await }
        });
        let io = TokioIo::new(stream);
        let served = if speaks_http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new());
            self.drive(builder.serve_connection(io, service), http2::Connection::graceful_shutdown).await
        } else {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
            self.drive(builder.serve_connection(io, service), http1::Connection::graceful_shutdown).await
        };
        if let Err(error) = served {
            tracing::debug!(client = %self.client, error = %with_causes(&error), "connection");
        }
    }

    /// Runs the connection; when asked to close, lets it finish what is in flight.
    async fn drive<C>(&self, connection: C, close_gracefully: fn(Pin<&mut C>)) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.closing.cancelled() => {}
        }
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = self.first_request.notified() => {}
            () = sleep(FIRST_REQUEST_GRACE) => {}
        }
        close_gracefully(connection.as_mut());
        connection.await
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
