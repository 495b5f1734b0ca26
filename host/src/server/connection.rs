//! One connection of the traffic listener, bounded in time whatever its client does.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::protocol;
use crate::config::Limits;
use crate::request::{Peer, Requests};
use crate::telemetry::metrics::OpenConnection;
use crate::transport::activity::Activity;
use crate::transport::deadline::LazyTimer;
use crate::transport::socket::{Socket, linger};
use crate::transport::unsent::{Unsent, Waiting};

/// At closing time: how long a connection without any request yet may take to show one. The kernel accepted it for us,
/// so its client may well have sent one.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    client: SocketAddr,
    requests: Arc<Requests>,
    limits: Limits,
    unsent: Arc<Unsent>,
    closing: CancellationToken,
    first_request: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
    _open: OpenConnection,
}

impl Connection {
    /// `unsent` is the account of answers that wait; `closing` asks every connection to end; `permit` counts this one.
    pub(crate) fn new(
        client: SocketAddr,
        requests: Arc<Requests>,
        limits: Limits,
        unsent: Arc<Unsent>,
        closing: CancellationToken,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let open = requests.metrics().connection_opened();
        Self { client, requests, limits, unsent, closing, first_request: Arc::default(), _permit: permit, _open: open }
    }

    /// Serves the connection until it ends.
    pub(crate) async fn serve(self, stream: TcpStream) {
        let limits = self.limits;
        let _ = stream.set_nodelay(true); // an answer is one write: waiting for more would only delay it
        let Ok(is_http2) = timeout(limits.header_timeout, protocol::is_http2(&stream)).await else { return };
        let activity = Activity::new(is_http2);
        let (requests, client, first) = (self.requests.clone(), self.client, self.first_request.clone());
        let busy = activity.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            first.notify_one();
            let requests = requests.clone();
            let peer = Peer::new(client, busy.clone());
            async move { requests.respond(peer, request).await }
        });
        let io = TokioIo::new(Socket::new(stream, activity.clone(), &limits));
        let served = if is_http2 {
            let connection = protocol::http2(&limits, self.unsent.clone()).serve_connection(io, service);
            self.drive(&activity, connection, http2::Connection::graceful_shutdown).await
        } else {
            let connection = protocol::http1(&limits).serve_connection(io, service);
            self.drive(&activity, connection, http1::Connection::graceful_shutdown).await
        };
        if let Err(error) = served {
            tracing::debug!(client = %self.client, error = with_causes(&error), "connection");
        }
        if let Some(unread) = activity.take_unread() {
            linger(unread, &self.closing).await;
        }
    }

    /// Runs the connection. When asked to close, or idle for too long, lets it finish what is in flight; drops it when
    /// its client stalls.
    async fn drive<C>(&self, activity: &Activity, connection: C, close: fn(Pin<&mut C>)) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let (mut reading, mut writing) = (LazyTimer::default(), Waiting::new(self.unsent.clone()));
        let (header_timeout, idle_timeout) = (self.limits.header_timeout, self.limits.idle_timeout);
        let mut next = async |connection: &mut Pin<&mut C>| {
            poll_fn(|context| {
                if let Poll::Ready(ended) = writing.scope(|| connection.as_mut().poll(context)) {
                    return Poll::Ready(Event::Ended(ended));
                }
                // A busy connection is looked at again, because its last response may end on another task.
                let recheck = || Some(tokio::time::Instant::now() + idle_timeout);
                let due = activity.deadline(header_timeout, idle_timeout);
                let lapsed = reading.poll(context, due.or_else(recheck)).is_ready();
                if writing.poll(context).is_ready() {
                    Poll::Ready(Event::Aborted)
                } else if lapsed && due.is_some() {
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
            Event::Aborted => return Ok(()),
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
    Aborted,
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
