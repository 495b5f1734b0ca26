//! One request: its id, its admission, its answer, and the one log line at its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::body::{Answer, Guard, Guarded, RequestBody};
use crate::config::Limits;
use crate::error::Error;
use crate::guest::{Call, Guest, GuestBody};
use crate::lifecycle::{Lifecycle, Phase};

/// The header that names a request, on the way in and on every answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken over from a client, in bytes; a UUID has 36.
const REQUEST_ID_MAX: usize = 128;

/// The status in the log of a request whose client left before there was one; nginx made it the custom.
const NO_ANSWER: u16 = 499;

/// The body of every answer: one of the host's own, or the guest's.
pub type AnswerBody = Guarded<Answer<GuestBody>, Record>;

/// Answers requests. Shared by all connections.
#[derive(Debug)]
pub struct Requests {
    guest: Arc<Guest>,
    lifecycle: Lifecycle,
    health: Option<Health>,
    slots: Arc<Semaphore>,
    limits: Limits,
}

/// The health report on the traffic address.
#[derive(Debug)]
pub struct Health {
    /// The path that it answers.
    pub path: String,
    /// The application's name in it.
    pub application: String,
    /// The machine's name in it.
    pub hostname: String,
}

/// One request that counts against the limit. It lives until both the guest and the response have ended.
#[derive(Debug)]
pub struct InFlight {
    _slot: OwnedSemaphorePermit,
}

impl Requests {
    /// Everything that it takes to answer.
    pub fn new(guest: Arc<Guest>, lifecycle: Lifecycle, health: Option<Health>, limits: Limits) -> Self {
        Self { guest, lifecycle, health, slots: Arc::new(Semaphore::new(limits.max_in_flight as usize)), limits }
    }

    /// How many requests are in flight now.
    pub fn in_flight(&self) -> usize {
        self.limits.max_in_flight as usize - self.slots.available_permits()
    }

    /// Waits until none is in flight. Call it when no new one can come: while it waits it takes every free slot.
    pub async fn finished(&self) {
        let _ = self.slots.acquire_many(self.limits.max_in_flight).await;
    }

    /// Answers one request, whatever happens.
    ///
    /// # Errors
    /// Never: every failure is an answer.
    pub async fn respond(
        &self,
        client: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let mut record = Record::new(client, &request);
        let (version, head_only) = (request.version(), request.method() == Method::HEAD);
        let mut response = match self.answer(request, &mut record).await {
            Ok(response) => response,
            Err(error) => {
                record.fail(&error);
                error.response(&record.request_id).map(Answer::Whole)
            }
        };
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&record.request_id) {
            headers.insert(REQUEST_ID, id);
        }
        if version < Version::HTTP_2 && self.lifecycle.phase() == Phase::Draining {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if head_only && let Answer::Whole(body) = response.body() {
            // hyper leaves the body out over HTTP/1.1 alone.
            let length = body.size_hint().lower();
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            *response.body_mut() = Answer::Whole(Full::default());
        }
        record.status = response.status().as_u16();
        Ok(Guarded::wrap(response, record))
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Answer<GuestBody>>, Error> {
        if let Some(health) = &self.health
            && request.uri().path() == health.path
            && matches!(*request.method(), Method::GET | Method::HEAD)
        {
            return Ok(health.response(&self.lifecycle).map(Answer::Whole));
        }
        *request.uri_mut() = absolute(request.uri(), request.headers(), request.version())?;
        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| Error::HostOverloaded(self.limits.max_in_flight))?;
        let in_flight = Arc::new(InFlight { _slot: slot });
        record.in_flight = Some(in_flight.clone());
        let (head, incoming) = request.into_parts();
        let (body, fault) = RequestBody::new(incoming, self.limits.max_body)?;
        let call = Call { request_id: record.request_id.clone(), guard: in_flight };
        let response = self.guest.handle(Request::from_parts(head, body), fault, call).await?;
        Ok(response.map(Answer::Stream))
    }
}

/// The target with scheme and authority, as the guest sees it: from an absolute target, else from `Host`.
fn absolute(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Uri, Error> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (uri.authority(), hosts.next()) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => {
            host.to_str().map_err(|_| Error::ClientBadRequest("The Host header is not a host name."))?
        }
        // HTTP/1.0 knows no Host.
        (None, None) if version < Version::HTTP_11 => "localhost",
        (None, None) => return Err(Error::ClientBadRequest("The Host header is missing.")),
    };
    if hosts.next().is_some() {
        return Err(Error::ClientBadRequest("The Host header is there twice."));
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    Uri::builder()
        .scheme(uri.scheme_str().unwrap_or("http"))
        .authority(host)
        .path_and_query(target)
        .build()
        .map_err(|_| Error::ClientBadRequest("The Host header is not a host name."))
}

impl Health {
    fn response(&self, lifecycle: &Lifecycle) -> Response<Full<Bytes>> {
        let ready = lifecycle.readiness().is_ok();
        let checks = lifecycle
            .checks()
            .map(|check| serde_json::json!({ "checker": check.name, "passed": check.passed, "output": check.output }));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let report = serde_json::json!({
            "application": self.application,
            "status": if ready { "success" } else { "failure" },
            "hostname": self.hostname,
            "timestamp": now.as_secs_f64(),
            "result": checks,
        });
        let mut response = Response::new(Full::new(Bytes::from(report.to_string())));
        *response.status_mut() = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// What the log line of a request says, gathered on the way. It is written when the record is dropped: at the last byte
/// of the response, or when the client has left.
#[derive(Debug)]
pub struct Record {
    request_id: Arc<str>,
    client: SocketAddr,
    method: Method,
    path: String,
    started: Instant,
    status: u16,
    bytes: u64,
    finished: bool,
    failure: Option<(&'static str, String)>,
    in_flight: Option<Arc<InFlight>>,
}

impl Record {
    fn new(client: SocketAddr, request: &Request<Incoming>) -> Self {
        Self {
            request_id: request_id(request.headers()),
            client,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            started: Instant::now(),
            status: NO_ANSWER,
            bytes: 0,
            finished: false,
            failure: None,
            in_flight: None,
        }
    }

    fn fail(&mut self, error: &Error) {
        self.failure = Some((error.reason(), error.detail()));
    }
}

impl Guard for Record {
    fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn finish(&mut self, result: Result<(), &Error>) {
        self.finished = true;
        if let Err(error) = result {
            self.fail(error);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.finished && self.failure.is_none() {
            self.fail(&Error::ClientGone);
        }
        let (reason, detail) = match &self.failure {
            Some((reason, detail)) => (*reason, Some(detail.as_str())),
            None => ("ok", None),
        };
        let seconds = self.started.elapsed().as_secs_f64();
        let (request_id, client) = (&*self.request_id, self.client);
        let (method, path, status, bytes) = (self.method.as_str(), self.path.as_str(), self.status, self.bytes);
        if reason.starts_with("guest_") || reason.starts_with("host_") {
            tracing::warn!(target: "access", request_id, %client, method, path, status, reason, bytes, seconds, detail, "failed");
        } else {
            tracing::info!(target: "access", request_id, %client, method, path, status, reason, bytes, seconds, detail, "served");
        }
    }
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
        _ => Arc::from(Uuid::now_v7().hyphenated().encode_lower(&mut Uuid::encode_buffer()) as &str),
    }
}
