//! One request's record: what it holds while it lives, and what is counted and logged of it at its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::{HeaderName, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use uuid::Uuid;

use crate::activity::{Activity, Cut};
use crate::body::{BodyReport, Guard};
use crate::config::{AccessLog, Limits};
use crate::error::Error;
use crate::logs::{Pass, RateLimit};
use crate::metrics::{Failure, Metrics};
use crate::spans::{Span, Spans, method_name};
use crate::trace::Place;

/// The header that names a request, on the way in and on every answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken over from a client, in bytes; a UUID has 36.
const REQUEST_ID_MAX: usize = 128;

/// The status in the log of a request whose client left before there was one; nginx made it the custom.
const NO_ANSWER: u16 = 499;

/// Causes of failures a second that are logged although the access log leaves the request out.
const CAUSES_PER_SECOND: u32 = 10;

/// Which requests are logged, and how.
#[derive(Debug)]
pub struct Access {
    which: AccessLog,
    rate: RateLimit,
    causes: RateLimit,
    /// The component's short digest.
    component: String,
}

impl Access {
    /// `component` is the short digest of what is served.
    pub fn new(which: AccessLog, component: String) -> Arc<Self> {
        let rate = match which {
            AccessLog::PerSecond(rate) => rate,
            _ => u32::MAX,
        };
        Arc::new(Self { which, rate: RateLimit::new(rate), causes: RateLimit::new(CAUSES_PER_SECOND), component })
    }
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// What its connection does.
    pub activity: Arc<Activity>,
}

impl Peer {
    /// The other end of a connection, and what the connection does.
    pub fn new(address: SocketAddr, activity: Arc<Activity>) -> Self {
        Self { address, activity }
    }
}

/// One request that counts against the limit. It lives until both the guest and the response have ended.
#[derive(Debug)]
pub struct InFlight {
    _slot: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl InFlight {
    /// `slot` is its share of the limit.
    pub fn new(slot: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.entered();
        Arc::new(Self { _slot: slot, metrics })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.left();
    }
}

/// What the log line of a request says, gathered on the way. It is written when the record is dropped: at the last byte
/// of the response, or when the client has left.
#[derive(Debug)]
pub struct Record {
    /// For every answer, the log and the guest.
    pub request_id: Arc<str>,
    /// Where it is in its trace.
    pub place: Place,
    /// Whether it is for the host itself: then it says nothing of the component, and is not counted.
    pub is_probe: bool,
    /// Whether the client said where it is, so that its own headers can be passed on as they are.
    pub place_given: bool,
    /// The other end of the connection.
    pub peer: Peer,
    /// The client: the peer, or who a trusted proxy says it is.
    pub client: IpAddr,
    /// When the request must be over.
    pub deadline: Instant,
    /// Cuts a response that is not read.
    pub cut: Arc<Cut>,
    /// Holds the request's slot.
    pub in_flight: Option<Arc<InFlight>>,
    /// How its body goes, where it was passed to the guest.
    pub body: Option<BodyReport>,
    method: Method,
    path: String,
    started: Instant,
    write_timeout: Duration,
    access: Arc<Access>,
    metrics: Arc<Metrics>,
    span: Option<Span>,
    seen_as: Option<Uri>,
    status: u16,
    first_byte: Option<Duration>,
    bytes: u64,
    finished: bool,
    failure: Option<(&'static str, String)>,
}

impl Record {
    /// A request has begun.
    pub fn new<B>(
        peer: Peer,
        request: &Request<B>,
        limits: &Limits,
        access: Arc<Access>,
        metrics: Arc<Metrics>,
        spans: Option<&Spans>,
    ) -> Self {
        peer.activity.begin();
        let started = Instant::now();
        let given = Place::of(request.headers());
        let span = spans.map(|spans| server_span(spans, request, &peer, given));
        let place = span.as_ref().map(Span::place).or(given).unwrap_or_else(Place::random);
        Self {
            request_id: request_id(request.headers()),
            place,
            place_given: given.is_some(),
            is_probe: false,
            client: peer.address.ip(),
            peer,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            started,
            deadline: started + limits.deadline,
            write_timeout: limits.write_timeout,
            cut: Arc::default(),
            access,
            metrics,
            span,
            seen_as: None,
            status: NO_ANSWER,
            first_byte: None,
            bytes: 0,
            finished: false,
            failure: None,
            in_flight: None,
            body: None,
        }
    }

    /// Its target with scheme and authority, as the guest sees it, for the span.
    pub fn seen_as(&mut self, target: &Uri) {
        if self.span.as_ref().is_some_and(Span::is_recording) {
            self.seen_as = Some(target.clone());
        }
    }

    /// The head of its response is ready.
    pub fn answered(&mut self, status: StatusCode) {
        let after = self.started.elapsed();
        if !self.is_probe {
            self.metrics.first_byte(after);
        }
        self.first_byte = Some(after);
        self.status = status.as_u16();
    }

    /// It failed.
    pub fn fail(&mut self, error: &Error) {
        self.failure = Some((error.reason(), error.detail()));
    }

    /// Why a response that is not finished was dropped: its client read too slowly, or left.
    fn abandoned(&self) -> Error {
        let now = Instant::now();
        if self.status != NO_ANSWER && now >= self.deadline {
            Error::GuestDeadline
        } else if self.peer.activity.is_stalled() || self.cut.is_due(now) {
            Error::ClientStalled
        } else {
            Error::ClientGone
        }
    }
}

impl Guard for Record {
    fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.cut.set(Some(self.deadline.min(Instant::now() + self.write_timeout)));
    }

    fn waiting(&mut self) {
        self.cut.set(None); // the guest's run has the deadline itself
    }

    fn finish(&mut self, result: Result<(), &Error>) {
        self.finished = true;
        self.cut.set(None);
        if let Err(error) = result {
            self.fail(error);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.finished && self.failure.is_none() {
            self.fail(&self.abandoned());
        }
        self.cut.set(None);
        self.peer.activity.end();
        let whole = self.started.elapsed();
        let reason = self.failure.as_ref().map_or("ok", |(reason, _)| *reason);
        self.end_span(reason);
        let detail = self.failure.as_ref().map(|(_, detail)| detail.as_str());
        if !self.is_probe {
            self.metrics.request_ended(self.status, reason, whole);
        }
        self.log(reason, detail, whole);
        if reason != "ok" {
            self.metrics.failed(Failure {
                at: std::time::Instant::now(),
                reason,
                method: self.method.clone(),
                path: std::mem::take(&mut self.path),
                request_id: self.request_id.clone(),
            });
        }
    }
}

impl Record {
    /// Says how it went, in the words of the semantic conventions for HTTP.
    fn end_span(&mut self, reason: &'static str) {
        let Some(span) = self.span.as_mut().filter(|span| span.is_recording()) else { return };
        let seen = self.seen_as.take().unwrap_or_default();
        span.set("url.scheme", seen.scheme_str().unwrap_or("http").to_owned());
        if let Some(host) = seen.host() {
            span.set("server.address", host.to_owned());
        }
        if let Some(port) = seen.port_u16() {
            span.set("server.port", i64::from(port));
        }
        span.set("client.address", self.client.to_string());
        span.set("http.response.status_code", i64::from(self.status));
        span.set("http.response.body.size", i64::try_from(self.bytes).unwrap_or(i64::MAX));
        let received = self.body.as_ref().map_or(0, BodyReport::received);
        span.set("http.request.body.size", i64::try_from(received).unwrap_or(i64::MAX));
        span.set("taffrail.reason", reason);
        span.set("taffrail.request_id", self.request_id.to_string());
        if reason.starts_with("guest_") || reason.starts_with("host_") {
            span.fail(reason);
        } else if self.status >= 500 {
            span.fail(self.status.to_string());
        }
    }

    fn log(&self, reason: &'static str, detail: Option<&str>, whole: Duration) {
        let left_out = match (self.access.which, self.access.rate.pass()) {
            (AccessLog::Off, _) | (_, Pass::No) => return self.log_cause(reason, detail),
            (AccessLog::Errors, _) if reason == "ok" && self.status < 500 => return,
            (_, Pass::Yes { dropped_before }) => (dropped_before > 0).then_some(dropped_before),
        };
        let seconds = whole.as_secs_f64();
        let first_byte = self.first_byte.map(|first_byte| first_byte.as_secs_f64());
        let trace_id = tracing::field::display(self.place.trace);
        let (request_id, client, component) = (&*self.request_id, self.client, self.access.component.as_str());
        let (method, path, status, bytes) = (self.method.as_str(), self.path.as_str(), self.status, self.bytes);
        let received = self.body.as_ref().map_or(0, BodyReport::received);
        if reason.starts_with("guest_") || reason.starts_with("host_") {
            tracing::warn!(target: "access", request_id, trace_id, %client, method, path, status, reason, bytes, received, seconds, first_byte, component, detail, left_out, "failed");
        } else {
            tracing::info!(target: "access", request_id, trace_id, %client, method, path, status, reason, bytes, received, seconds, first_byte, component, detail, left_out, "served");
        }
    }
}

impl Record {
    /// Without an access log the cause of a failure, such as a trap's backtrace, would be nowhere.
    fn log_cause(&self, reason: &'static str, detail: Option<&str>) {
        if !reason.starts_with("guest_") && reason != "host_internal" {
            return;
        }
        if let Pass::Yes { dropped_before } = self.access.causes.pass() {
            let left_out = (dropped_before > 0).then_some(dropped_before);
            tracing::warn!(request_id = &*self.request_id, reason, detail, left_out, "a request failed");
        }
    }
}

/// The span of a request. The query is left out, as from the log: it may hold a secret.
fn server_span<B>(spans: &Spans, request: &Request<B>, peer: &Peer, given: Option<Place>) -> Span {
    let method = method_name(request.method());
    let mut span = spans.server(method.unwrap_or("HTTP"), given, request.headers());
    if span.is_recording() {
        span.set("http.request.method", method.unwrap_or("_OTHER"));
        if method.is_none() {
            span.set("http.request.method_original", request.method().to_string());
        }
        span.set("url.path", request.uri().path().to_owned());
        span.set("network.peer.address", peer.address.ip().to_string());
        span.set("network.peer.port", i64::from(peer.address.port()));
        let version = if request.version() == Version::HTTP_2 { "2" } else { "1.1" };
        span.set("network.protocol.version", version);
        if let Some(agent) = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()) {
            span.set("user_agent.original", agent.to_owned());
        }
    }
    span
}

/// The client's id when it is sane (one value of at most 128 visible characters without quotes), else a new UUIDv7.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let mut given = headers.get_all(REQUEST_ID).iter();
    let sane = |id: &&str| {
        (1..=REQUEST_ID_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(&byte))
    };
    match (given.next().and_then(|id| id.to_str().ok()).filter(sane), given.next()) {
        (Some(id), None) => Arc::from(id),
        _ => Arc::from(new_id().hyphenated().encode_lower(&mut Uuid::encode_buffer()) as &str),
    }
}

/// A UUIDv7. Its random part need not be a secret, so it comes without a system call.
fn new_id() -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = fastrand::u128(..).to_ne_bytes();
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&random[..10]);
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), &bytes).into_uuid()
}
