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
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::protocol;
use super::room::Room;
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

/// How long a connection of HTTP/2 that was told to close may go on with nothing to do: its client has a round trip to answer the
/// goodbye, and to send what it had begun.
const GOODBYE: Duration = Duration::from_secs(2);

/// What all connections have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Answers what comes.
    pub(crate) requests: Arc<Requests>,
    /// The limits of each.
    pub(crate) limits: Limits,
    /// The account of answers that wait for their clients.
    pub(crate) unsent: Arc<Unsent>,
    /// Who makes room for another.
    pub(crate) room: Arc<Room>,
    /// Asks every connection to end.
    pub(crate) closing: CancellationToken,
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    client: SocketAddr,
    shared: Arc<Shared>,
    first_request: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
    _open: OpenConnection,
}

impl Connection {
    /// `permit` counts this one.
    pub(crate) fn new(client: SocketAddr, shared: Arc<Shared>, permit: OwnedSemaphorePermit) -> Self {
        let open = shared.requests.metrics().connection_opened();
        Self { client, shared, first_request: Arc::default(), _permit: permit, _open: open }
    }

    /// Serves the connection until it ends.
    pub(crate) async fn serve(self, stream: TcpStream) {
        let limits = self.shared.limits;
        let _ = stream.set_nodelay(true); // an answer is one write: waiting for more would only delay it
        let activity = Activity::new();
        let _entry = self.shared.room.enter(activity.clone());
        let mut socket = Socket::new(stream, activity.clone(), &limits);
        let Some(is_http2) = self.first_words(&mut socket, &activity).await else { return };
        let (requests, client, first) = (self.shared.requests.clone(), self.client, self.first_request.clone());
        let busy = activity.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            first.notify_one();
            let requests = requests.clone();
            let peer = Peer::new(client, busy.clone());
            async move { requests.respond(peer, request).await }
        });
        let io = TokioIo::new(socket);
        let served = if is_http2 {
            let connection = protocol::http2(&limits, self.shared.unsent.clone()).serve_connection(io, service);
            self.drive(&activity, connection, http2::Connection::graceful_shutdown).await
        } else {
            let connection = protocol::http1(&limits).serve_connection(io, service);
            self.drive(&activity, connection, http1::Connection::graceful_shutdown).await
        };
        if let Err(error) = served {
            tracing::debug!(client = %self.client, error = with_causes(&error), "connection");
        }
        if let Some(unread) = activity.take_unread() {
            linger(unread, &self.shared.closing).await;
        }
    }

    /// Whether the client speaks HTTP/2. `None` where it says too little of that in the time of a head, before another needs its
    /// place, or at closing time.
    async fn first_words(&self, socket: &mut Socket, activity: &Activity) -> Option<bool> {
        let mut said = pin!(timeout_at(activity.accepted() + self.shared.limits.header_timeout, socket.speaks_http2()));
        let said = tokio::select! {
            biased;
            said = &mut said => said,
            () = self.shared.closing.cancelled() => timeout(FIRST_REQUEST_GRACE, said).await.ok()?,
            () = activity.asked_for_room() => return None,
        };
        said.ok()?.ok()
    }

    /// Runs the connection. When asked to close, or idle for too long, lets it finish what is in flight; drops it when
    /// its client stalls.
    async fn drive<C>(&self, activity: &Activity, connection: C, close: fn(Pin<&mut C>)) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let (header_timeout, idle_timeout) = (self.shared.limits.header_timeout, self.shared.limits.idle_timeout);
        let mut driven = Driven {
            activity,
            connection: pin!(connection),
            reading: LazyTimer::default(),
            writing: Waiting::new(self.shared.unsent.clone()),
            recheck: header_timeout.min(idle_timeout) / 8,
        };
        let due = || activity.deadline(header_timeout, idle_timeout);
        let event = tokio::select! {
            event = driven.next(due) => event,
            () = self.shared.closing.cancelled() => Event::Closing,
            () = activity.asked_for_room() => Event::Replaced,
        };
        let mut goodbye = match event {
            Event::Ended(_) | Event::Aborted => return event.result(),
            Event::Lapsed => Goodbye::new(activity, header_timeout, header_timeout),
            Event::Replaced => Goodbye { is_late: true, ..Goodbye::new(activity, header_timeout, header_timeout) },
            Event::Closing => {
                tokio::select! {
                    biased;
                    event = driven.next(due) => return event.result(),
                    () = self.first_request.notified() => {}
                    () = sleep(FIRST_REQUEST_GRACE) => {}
                }
                Goodbye::new(activity, header_timeout, idle_timeout)
            }
        };
        close(driven.connection.as_mut());
        driven.next(|| goodbye.until()).await.result()
    }
}

/// A connection that is polled, and what ends it beside itself.
struct Driven<'a, C> {
    activity: &'a Activity,
    connection: Pin<&'a mut C>,
    reading: LazyTimer,
    writing: Waiting,
    /// How often a connection that is busy is looked at: its last response may end on another task, which wakes nobody here.
    recheck: Duration,
}

impl<C: Future<Output = hyper::Result<()>>> Driven<'_, C> {
    /// Runs the connection until something happens to it. `due` says when it lapses; `None` while it is busy.
    async fn next(&mut self, mut due: impl FnMut() -> Option<Instant>) -> Event {
        poll_fn(|context| {
            let Self { activity, connection, reading, writing, recheck } = self;
            activity.begin_turn();
            if let Poll::Ready(ended) = writing.scope(|| connection.as_mut().poll(context)) {
                return Poll::Ready(Event::Ended(ended));
            }
            let due = due();
            let lapsed = reading.poll(context, due.or_else(|| Some(Instant::now() + *recheck))).is_ready();
            if writing.poll(context).is_ready() {
                Poll::Ready(Event::Aborted)
            } else if lapsed && due.is_some() {
                Poll::Ready(Event::Lapsed)
            } else {
                Poll::Pending
            }
        })
        .await
    }
}

/// The end of a connection that was told to close: what has begun is finished, a head that has begun has its time, and then HTTP/2
/// says goodbye, to which an honest client answers within a round trip.
struct Goodbye<'a> {
    activity: &'a Activity,
    header_timeout: Duration,
    /// How long a client may take for what is still to be written.
    patience: Duration,
    closed: Instant,
    progress: u64,
    quiet_since: Instant,
    /// Whether the connection is closed because a head has had its time, or for the sake of another.
    is_late: bool,
}

impl<'a> Goodbye<'a> {
    fn new(activity: &'a Activity, header_timeout: Duration, patience: Duration) -> Self {
        let (closed, progress) = (Instant::now(), activity.progress());
        let is_late = activity.waits_for_head()
            && activity.deadline(header_timeout, patience).is_some_and(|deadline| deadline <= closed);
        Self { activity, header_timeout, patience, closed, progress, quiet_since: closed, is_late }
    }

    /// When it has taken too long; `None` while a request is answered.
    fn until(&mut self) -> Option<Instant> {
        let activity = self.activity;
        let wait = activity.deadline(self.header_timeout, self.patience)?;
        if self.is_late && activity.idle_since() <= self.closed {
            return Some(self.closed);
        }
        if activity.is_within_head() {
            return Some(wait);
        }
        if self.progress != activity.progress() {
            self.progress = activity.progress();
            self.quiet_since = Instant::now();
        }
        let idle_since = activity.idle_since().max(self.closed);
        let latest = idle_since + self.patience;
        let quiet = self.quiet_since.max(idle_since) + GOODBYE;
        Some(if activity.is_blocked() { latest } else { latest.min(quiet) })
    }
}

/// What happens to a connection.
enum Event {
    Ended(hyper::Result<()>),
    /// It waits for its client for too long.
    Lapsed,
    /// Its client does not read a response.
    Aborted,
    /// Another connection needs its place.
    Replaced,
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
