//! What a guest may call: the servers that `--allow-outbound` names, bounded in time and number, over connections that
//! all guests share. Everything else is refused with `wasi:http`'s own error, and the log names the flag.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::HeaderName;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower_service::Service;
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

use crate::allowlist::may_reach;
use crate::body::BodyReport;
use crate::logs::{Pass, RateLimit};
use crate::metrics::Metrics;
use crate::settings::OutboundLimits;
use crate::spans::{GuestTrace, Span};
use crate::tls;

/// How long a connection that nobody uses is kept. Most servers close theirs after a minute.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// Connections to one server that are kept so.
const POOL_IDLE_MAX: usize = 64;
/// What hyper may buffer of a response's head, in bytes.
const HEAD_MAX: usize = 64 * 1024;
/// What a guest may hand over in one write, in bytes; two of these are kept ahead of the client. Wasmtime would take 1 MiB.
const WRITE_MAX: usize = 64 * 1024;
/// Refusals that are logged each second; every one is counted.
const COMPLAINTS_PER_SECOND: u32 = 10;

/// What all guests share: the rules and the connections.
#[derive(Debug)]
pub struct Servers {
    limits: OutboundLimits,
    client: Client<Patient, WasiBody>,
    slots: Arc<Semaphore>,
    complaints: RateLimit,
}

impl Servers {
    /// The servers that these limits allow; `None` where there is none.
    ///
    /// # Errors
    /// When the certificates of `--ca-file` cannot be used.
    pub fn new(limits: OutboundLimits) -> anyhow::Result<Option<Arc<Self>>> {
        if limits.allowed.is_empty() {
            return Ok(None);
        }
        let mut http = HttpConnector::new_with_resolver(Resolver { networks: limits.networks.clone().into() });
        http.enforce_http(false);
        http.set_nodelay(true);
        let tls = tls::client(limits.ca_file.as_deref())?;
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .http1_max_buf_size(HEAD_MAX)
            .http2_max_header_list_size(HEAD_MAX as u32)
            .build(Patient { connector: https.wrap_connector(http), patience: limits.connect_timeout });
        let slots = Arc::new(Semaphore::new(limits.max_in_flight as usize));
        let complaints = RateLimit::new(COMPLAINTS_PER_SECOND);
        Ok(Some(Arc::new(Self { limits, client, slots, complaints })))
    }

    /// Whether a request to this URI is allowed.
    fn allows(&self, uri: &Uri) -> bool {
        self.limits.allowed.iter().any(|allowed| allowed.covers(uri))
    }

    fn complain(&self, error: &'static str, uri: &Uri, why: &str) {
        if let Pass::Yes { dropped_before } = self.complaints.pass() {
            let left_out = (dropped_before > 0).then_some(dropped_before);
            let (scheme, server) = (uri.scheme_str(), uri.authority().map(|authority| authority.as_str()));
            tracing::warn!(reason = error, scheme, server, left_out, "outbound request: {why}");
        }
    }
}

/// The outbound side of one guest.
pub struct Outbound {
    servers: Option<Arc<Servers>>,
    metrics: Arc<Metrics>,
    trace: GuestTrace,
    report: BodyReport,
    slots: Option<Arc<Semaphore>>,
}

impl Outbound {
    /// Of a guest that has called nobody yet. Without servers everything is refused.
    pub fn new(servers: Option<Arc<Servers>>, metrics: Arc<Metrics>, trace: GuestTrace, report: BodyReport) -> Self {
        Self { servers, metrics, trace, report, slots: None }
    }

    /// The guest now runs for another request.
    pub fn hand_over(&mut self, trace: GuestTrace, report: BodyReport) {
        self.trace = trace;
        self.report = report;
        self.slots = None;
    }

    /// The request with what it needs to go out, or why it may not.
    fn admit(&mut self, request: &Request<WasiBody>) -> std::result::Result<(Arc<Servers>, Permits), Refusal> {
        let Some(servers) = self.servers.clone().filter(|servers| servers.allows(request.uri())) else {
            return Err(Refusal::NotAllowed);
        };
        let limit = servers.limits.max_per_request as usize;
        let own = self.slots.get_or_insert_with(|| Arc::new(Semaphore::new(limit))).clone().try_acquire_owned();
        let all = servers.slots.clone().try_acquire_owned();
        match (own, all) {
            (Ok(own), Ok(all)) => Ok((servers, (own, all))),
            _ => Err(Refusal::TooMany),
        }
    }
}

type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);
type Exchange = (Response<WasiBody>, Box<dyn Future<Output = Result<()>> + Send>);

impl WasiHttpHooks for Outbound {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name) // the default does the same behind an allocation for every header
    }

    // The client writes `Host` for HTTP/1.1, and HTTP/2 has none.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        WRITE_MAX
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        WRITE_MAX
    }

    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Result<Exchange>> + Send> {
        let (servers, permits) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.metrics.outbound(refusal.reason());
                let uri = request.uri();
                match &self.servers {
                    Some(servers) => servers.complain(refusal.reason(), uri, refusal.advice()),
                    None => tracing::info!(host = uri.host(), "outbound request: {}", Refusal::NotAllowed.advice()),
                }
                return Box::new(async move { Err(refusal.into()) });
            }
        };
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let span = self.trace.call(&method, &uri, request.headers_mut());
        let (metrics, report) = (self.metrics.clone(), self.report.clone());
        let call = Call { span, metrics, report, ended: false, _permits: permits };
        Box::new(send(servers, request, options.unwrap_or_default(), call))
    }
}

/// Sends a request and returns with the head of the answer. Its body holds the call's slots until it is over.
async fn send(
    servers: Arc<Servers>,
    request: Request<WasiBody>,
    options: RequestOptions,
    mut call: Call,
) -> Result<Exchange> {
    let limits = &servers.limits;
    let uri = request.uri().clone();
    let shorter = |asked: Option<Duration>, limit: Duration| asked.map_or(limit, |asked| asked.min(limit));
    // The client may have to connect first, which has its own limit.
    let patience = shorter(options.connect_timeout, limits.connect_timeout)
        + shorter(options.first_byte_timeout, limits.first_byte_timeout);
    let answer = match timeout(patience, servers.client.request(request)).await {
        Ok(answer) => answer.map_err(|error| Refusal::of(&error)),
        Err(_) => Err(Refusal::FirstByteTimeout),
    };
    match answer {
        Ok(response) => {
            call.answered(response.status().as_u16());
            let between_bytes = shorter(options.between_bytes_timeout, limits.between_bytes_timeout);
            let response =
                response.map(|incoming| ServerBody { incoming, call, between_bytes, waiting: None }.boxed_unsync());
            Ok((response, Box::new(async { Ok(()) })))
        }
        Err(refusal) => {
            servers.complain(refusal.reason(), &uri, refusal.advice());
            call.end(refusal.reason());
            Err(refusal.into())
        }
    }
}

/// One call: counted when it ends.
struct Call {
    span: Option<Span>,
    metrics: Arc<Metrics>,
    report: BodyReport,
    ended: bool,
    _permits: Permits,
}

impl Call {
    fn answered(&mut self, status: u16) {
        if let Some(span) = &mut self.span {
            span.set("http.response.status_code", i64::from(status));
            if status >= 400 {
                span.fail(status.to_string()); // a client's span takes every 4xx for an error
            }
        }
    }

    fn end(&mut self, reason: &'static str) {
        if !std::mem::replace(&mut self.ended, true) {
            self.metrics.outbound(reason);
            if reason != "ok"
                && let Some(span) = &mut self.span
            {
                span.fail(reason);
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end("abandoned"); // the guest read no further, or was stopped
    }
}

/// The body of a server's answer.
struct ServerBody {
    incoming: Incoming,
    call: Call,
    between_bytes: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Body for ServerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = None;
                if self.incoming.is_end_stream() {
                    self.call.end("ok");
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => {
                self.call.end(Refusal::Broken.reason());
                Poll::Ready(Some(Err(Refusal::Broken.into())))
            }
            Poll::Ready(None) => {
                self.call.end("ok");
                Poll::Ready(None)
            }
            Poll::Pending => {
                self.call.report.waits_outside();
                let patience = self.between_bytes;
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
                if waiting.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.call.end(Refusal::BetweenBytesTimeout.reason());
                Poll::Ready(Some(Err(Refusal::BetweenBytesTimeout.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Why a call got no answer, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NotAllowed,
    Prohibited,
    TooMany,
    NoSuchName,
    ConnectTimeout,
    ConnectFailed,
    Certificate,
    Tls,
    FirstByteTimeout,
    BetweenBytesTimeout,
    Broken,
}

impl Refusal {
    /// For the metric.
    fn reason(self) -> &'static str {
        match self {
            Self::NotAllowed => "refused",
            Self::Prohibited => "prohibited_address",
            Self::TooMany => "too_many",
            Self::NoSuchName => "dns_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::Certificate => "certificate",
            Self::Tls => "tls_failed",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::BetweenBytesTimeout => "between_bytes_timeout",
            Self::Broken => "broken",
        }
    }

    /// For the log.
    fn advice(self) -> &'static str {
        match self {
            Self::NotAllowed => "refused; --allow-outbound with its scheme, host and port would allow it",
            Self::Prohibited => {
                "refused: the name leads to an address that is not public; --outbound-network with its network would allow it"
            }
            Self::TooMany => "refused: as many as --max-outbound or --max-outbound-per-request allow are under way",
            Self::NoSuchName => "the name cannot be resolved",
            Self::ConnectTimeout => "no connection within --outbound-connect-timeout",
            Self::ConnectFailed => "no connection",
            Self::Certificate => "the server's certificate is not trusted; --ca-file adds an authority",
            Self::Tls => "TLS failed",
            Self::FirstByteTimeout => "no answer within --outbound-first-byte-timeout",
            Self::BetweenBytesTimeout => "the answer stopped for --outbound-between-bytes-timeout",
            Self::Broken => "the answer broke off",
        }
    }

    /// What a failure of the client comes from, which it hides in a chain of causes.
    fn of(error: &hyper_util::client::legacy::Error) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(ours) = error.downcast_ref::<Refused>() {
                return ours.0;
            }
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return if matches!(tls, rustls::Error::InvalidCertificate(_)) { Self::Certificate } else { Self::Tls };
            }
            // An I/O error keeps what it was made of to itself.
            cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        if error.is_connect() { Self::ConnectFailed } else { Self::Broken }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotAllowed => Self::HttpRequestDenied,
            Refusal::Prohibited => Self::DestinationIpProhibited,
            Refusal::TooMany => Self::ConnectionLimitReached,
            Refusal::NoSuchName => Self::DnsError { rcode: None, info_code: None },
            Refusal::ConnectTimeout => Self::ConnectionTimeout,
            Refusal::ConnectFailed => Self::ConnectionRefused,
            Refusal::Certificate => Self::TlsCertificateError,
            Refusal::Tls => Self::TlsProtocolError,
            Refusal::FirstByteTimeout => Self::HttpResponseTimeout,
            Refusal::BetweenBytesTimeout => Self::ConnectionReadTimeout,
            Refusal::Broken => Self::HttpResponseIncomplete,
        }
    }
}

/// A refusal on its way through the client.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.advice())]
struct Refused(Refusal);

/// Resolves a name and leaves out the addresses that it must not lead to. The connection goes to one of those that are
/// left, so that a name cannot lead elsewhere a moment later.
#[derive(Debug, Clone)]
struct Resolver {
    networks: Arc<[ipnet::IpNet]>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let networks = self.networks.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found: Vec<SocketAddr> = found.map_err(|_| Refused(Refusal::NoSuchName))?.collect();
            let open: Vec<_> = found.iter().copied().filter(|found| may_reach(found.ip(), &networks)).collect();
            match (open.is_empty(), found.is_empty()) {
                (false, _) => Ok(open.into_iter()),
                (true, false) => Err(Refused(Refusal::Prohibited)),
                (true, true) => Err(Refused(Refusal::NoSuchName)),
            }
        })
    }
}

/// Connects, name and TLS included, for so long.
#[derive(Debug, Clone)]
struct Patient {
    connector: HttpsConnector<HttpConnector<Resolver>>,
    patience: Duration,
}

impl Service<Uri> for Patient {
    type Response = <HttpsConnector<HttpConnector<Resolver>> as Service<Uri>>::Response;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, until) = (self.connector.call(uri), Instant::now() + self.patience);
        Box::pin(async move {
            match tokio::time::timeout_at(until, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(Refused(Refusal::ConnectTimeout).into()),
            }
        })
    }
}
