//! One request: its admission, its bounds, its answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use ipnet::IpNet;
use tokio::sync::Semaphore;

use crate::activity::{Activity, Cut};
use crate::body::{Answer, Guarded, RequestBody};
use crate::config::{Config, Limits};
use crate::error::Error;
use crate::forwarded::{self, Origin};
use crate::guest::{Call, Guest, GuestBody};
use crate::lifecycle::{Lifecycle, Phase};
use crate::metrics::Metrics;
use crate::record::{Access, InFlight, Peer, REQUEST_ID, Record};
use crate::spans::{GuestTrace, Spans};

/// The body of every answer: one of the host's own, or the guest's.
pub type AnswerBody = Guarded<Answer<GuestBody>, Record>;

/// Answers requests. Shared by all connections.
#[derive(Debug)]
pub struct Requests {
    guest: Arc<Guest>,
    lifecycle: Lifecycle,
    health: Option<Health>,
    trusted_proxies: Vec<IpNet>,
    limits: Limits,
    slots: Arc<Semaphore>,
    max_in_flight: u32,
    access: Arc<Access>,
    metrics: Arc<Metrics>,
    spans: Option<Arc<Spans>>,
}

/// The health report on the traffic address.
#[derive(Debug)]
struct Health {
    path: String,
    application: String,
    /// The machine's name; in Kubernetes the pod's.
    hostname: String,
}

impl Requests {
    /// Everything that it takes to answer, `max_in_flight` requests at a time.
    pub fn new(
        guest: Arc<Guest>,
        lifecycle: Lifecycle,
        config: &Config,
        max_in_flight: u32,
        spans: Option<Arc<Spans>>,
    ) -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let health = config.health_path.clone().map(|path| Health {
            path,
            application: config.application.clone(),
            hostname: hostname.trim().to_owned(),
        });
        let metrics = guest.metrics().clone();
        metrics.set_limit(max_in_flight);
        let access = Access::new(config.access_log, guest.revision().short_digest().to_owned());
        Self {
            access,
            metrics,
            guest,
            lifecycle,
            health,
            trusted_proxies: config.trusted_proxies.clone(),
            limits: config.limits,
            slots: Arc::new(Semaphore::new(max_in_flight as usize)),
            max_in_flight,
            spans,
        }
    }

    /// The metrics that requests are counted in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How many requests are in flight now.
    pub fn in_flight(&self) -> usize {
        self.max_in_flight as usize - self.slots.available_permits()
    }

    /// Waits until none is in flight. Call it when no new one can come: while it waits it takes every free slot.
    pub async fn finished(&self) {
        let _ = self.slots.acquire_many(self.max_in_flight).await;
    }

    /// Answers one request, whatever happens.
    ///
    /// # Errors
    /// Never: every failure is an answer.
    pub async fn respond(&self, peer: Peer, request: Request<Incoming>) -> Result<Response<AnswerBody>, Infallible> {
        let (access, metrics) = (self.access.clone(), self.metrics.clone());
        let mut record = Record::new(peer, &request, &self.limits, access, metrics, self.spans.as_deref());
        let (version, head_only) = (request.version(), request.method() == Method::HEAD);
        let mut close = version < Version::HTTP_2 && self.lifecycle.phase() == Phase::Draining;
        let mut response = match self.answer(request, &mut record).await {
            Ok(response) => response,
            Err(error) => {
                // What is left of such a request may be another one in disguise.
                close |= version < Version::HTTP_2 && matches!(error, Error::ClientBadRequest(_));
                record.fail(&error);
                error.response(&record.request_id).map(Answer::Whole)
            }
        };
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&record.request_id) {
            headers.insert(REQUEST_ID, id);
        }
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if head_only && let Answer::Whole(body) = response.body() {
            // hyper leaves the body out over HTTP/1.1 alone.
            let length = body.size_hint().lower();
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            *response.body_mut() = Answer::Whole(Full::default());
        }
        record.answered(response.status());
        record.cut = Cut::current();
        Ok(Guarded::wrap(response, record))
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Response<Answer<GuestBody>>, Error> {
        self.check(&request, &record.peer.activity)?;
        if let Some(health) = &self.health
            && request.uri().path() == health.path
            && matches!(*request.method(), Method::GET | Method::HEAD)
        {
            record.is_probe = true;
            return Ok(health.response(&self.lifecycle).map(Answer::Whole));
        }
        let origin = forwarded::origin(record.peer.address, request.headers(), &self.trusted_proxies);
        record.client = origin.client;
        *request.uri_mut() = absolute(&request, &origin)?;
        record.seen_as(request.uri());
        remove_hop_by_hop(request.headers_mut());

        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| {
            self.metrics.shed();
            Error::HostOverloaded(self.max_in_flight)
        })?;
        let in_flight = InFlight::new(slot, self.metrics.clone());
        record.in_flight = Some(in_flight.clone());
        let (mut head, incoming) = request.into_parts();
        let (body, report) = RequestBody::new(incoming, self.limits.max_body, self.limits.body_timeout)?;
        record.body = Some(report.clone());
        let (mut trace, span) = GuestTrace::new(record.place, self.spans.clone());
        trace.hand_on(&mut head.headers, record.place_given);
        let (request_id, deadline) = (record.request_id.clone(), record.deadline);
        let call = Call { request_id, trace, span, deadline, guard: in_flight };
        let response = self.guest.handle(Request::from_parts(head, body), report, call).await?;
        check_response(&response, &self.limits)?;
        Ok(response.map(Answer::Stream))
    }

    /// Refuses what must not reach a guest.
    fn check(&self, request: &Request<Incoming>, activity: &Activity) -> Result<(), Error> {
        let (uri, fields) = (request.uri(), request.headers());
        let line = uri.authority().map_or(0, |authority| authority.as_str().len())
            + uri.path_and_query().map_or(0, |target| target.as_str().len());
        if fields.len() > self.limits.max_headers || line + header_size(fields) > self.limits.max_header_size {
            return Err(Error::ClientHeaderTooLarge);
        }
        if request.method() == Method::CONNECT {
            return Err(Error::ClientMethodNotAllowed);
        }
        if fields.contains_key(TRANSFER_ENCODING)
            && let Some(why) = activity.length_conflict()
        {
            return Err(Error::ClientBadRequest(why));
        }
        Ok(())
    }
}

/// The size of a header as HTTP/1.1 writes it, in bytes.
fn header_size(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}

/// Refuses what cannot be sent.
fn check_response<B>(response: &Response<B>, limits: &Limits) -> Result<(), Error> {
    if header_size(response.headers()) > limits.max_response_header_size {
        return Err(Error::GuestHeaderTooLarge);
    }
    if response.status().is_informational() {
        return Err(Error::GuestBadResponse("a 1xx status is no answer"));
    }
    Ok(())
}

/// Removes the fields that `Connection` names: they are between the client and this host (RFC 9110, 7.6.1). The ones
/// that are so by definition never reach a guest (`outbound`).
fn remove_hop_by_hop(fields: &mut HeaderMap) {
    let named: Vec<HeaderName> = fields
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    // Not every name may be taken away: these say where and how large a request is, whatever a client claims.
    for name in named.iter().filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)) {
        fields.remove(name);
    }
}

/// The target with scheme and authority, as the guest sees it: from a trusted proxy, else from an absolute target, else
/// from `Host`.
fn absolute(request: &Request<Incoming>, origin: &Origin) -> Result<Uri, Error> {
    const NO_HOST_NAME: Error = Error::ClientBadRequest("The Host header is not a host name.");
    let (uri, mut hosts) = (request.uri(), request.headers().get_all(HOST).iter());
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Error::ClientBadRequest("The Host header is there twice."));
    }
    let authority = match (&origin.host, uri.authority(), host) {
        (Some(forwarded), _, _) => forwarded.as_str(),
        (None, Some(authority), _) => authority.as_str(),
        (None, None, Some(host)) => host.to_str().map_err(|_| NO_HOST_NAME)?,
        // HTTP/1.0 knows no Host.
        (None, None, None) if request.version() < Version::HTTP_11 => "localhost",
        (None, None, None) => return Err(Error::ClientBadRequest("The Host header is missing.")),
    };
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Error::ClientBadRequest("The Host header is missing."));
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let scheme = origin.scheme.or(uri.scheme_str()).unwrap_or("http");
    Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build().map_err(|_| NO_HOST_NAME)
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
