//! The way of a request: admitted, bounded, answered, recorded.

mod access_log;
mod admission;
mod health;
mod in_flight;
mod record;
mod request_id;

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::{Method, Request, Response, Version};
use ipnet::IpNet;
use tokio::sync::Semaphore;

use crate::config::{Config, Limits};
use crate::error::{ERROR_HEADER, Error};
use crate::guest::{Guest, GuestBody, RequestContext};
use crate::http::cookies::join_crumbs;
use crate::http::forwarded;
use crate::http::framing::remove_hop_by_hop;
use crate::http::request_body::{BodyReport, RequestBody};
use crate::http::response_body::{ObservedBody, ResponseBody};
use crate::http::target::absolute;
use crate::lifecycle::{Lifecycle, Phase};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::{GuestTrace, Spans};
use crate::transport::deadline::AbortTime;
use access_log::AccessLog;
use admission::{check_request, check_response};
use health::Health;
use in_flight::InFlight;
use record::Record;
use request_id::REQUEST_ID;

pub(crate) use record::Peer;

/// The body of every answer: one of the host's own, or the guest's.
type AnswerBody = ObservedBody<ResponseBody<GuestBody>, Record>;

/// Answers requests. Shared by all connections.
#[derive(Debug)]
pub(crate) struct Requests {
    guest: Arc<Guest>,
    lifecycle: Lifecycle,
    health: Option<Health>,
    trusted_proxies: Vec<IpNet>,
    limits: Limits,
    slots: Arc<Semaphore>,
    max_in_flight: u32,
    access_log: Arc<AccessLog>,
    metrics: Arc<Metrics>,
    spans: Option<Arc<Spans>>,
}

impl Requests {
    /// Everything that it takes to answer, `max_in_flight` requests at a time.
    pub(crate) fn new(
        guest: Arc<Guest>,
        lifecycle: Lifecycle,
        config: &Config,
        max_in_flight: u32,
        spans: Option<Arc<Spans>>,
    ) -> Self {
        let health = config.health_path.clone().map(|path| Health::new(path, config.application.clone()));
        let metrics = guest.metrics().clone();
        metrics.set_limit(max_in_flight);
        let access_log = AccessLog::new(config.access_log, guest.revision().short_digest().to_owned());
        Self {
            access_log,
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
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How many requests are in flight now.
    pub(crate) fn in_flight(&self) -> usize {
        self.max_in_flight as usize - self.slots.available_permits()
    }

    /// Waits until none is in flight. Call it when no new one can come: while it waits it takes every free slot.
    pub(crate) async fn finished(&self) {
        let _ = self.slots.acquire_many(self.max_in_flight).await;
    }

    /// Answers one request, whatever happens.
    ///
    /// # Errors
    /// Never: every failure is an answer.
    pub(crate) async fn respond(
        &self,
        peer: Peer,
        mut request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        if request.version() == Version::HTTP_2 {
            join_crumbs(request.headers_mut());
        }
        let (access_log, metrics) = (self.access_log.clone(), self.metrics.clone());
        let mut record = Record::new(peer, &request, &self.limits, access_log, metrics, self.spans.as_deref());
        let (version, head_only) = (request.version(), request.method() == Method::HEAD);
        let mut close = version < Version::HTTP_2 && self.lifecycle.phase() == Phase::Draining;
        let mut response = match self.answer(request, &mut record).await {
            Ok(response) => response,
            Err(error) => {
                // What is left of such a request may be another one in disguise.
                let is_refused = matches!(error, Error::ClientBadRequest(_) | Error::ClientHeaderTooLarge);
                close |= version < Version::HTTP_2 && is_refused;
                record.fail(&error);
                error.response(&record.request_id).map(ResponseBody::Whole)
            }
        };
        // Nobody will read the rest of a body that the client may be sending now: no other request can come on this connection.
        let is_left = record.body.as_ref().is_none_or(BodyReport::is_left);
        close |= version < Version::HTTP_2 && is_left && record.peer.activity.is_body_open();
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&record.request_id) {
            headers.insert(REQUEST_ID, id);
        }
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if head_only && let ResponseBody::Whole(body) = response.body() {
            // hyper leaves the body out over HTTP/1.1 alone.
            let length = body.size_hint().lower();
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            *response.body_mut() = ResponseBody::Whole(Full::default());
        }
        record.answered(response.status());
        record.abort_time = AbortTime::current();
        Ok(ObservedBody::wrap(response, record))
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Response<ResponseBody<GuestBody>>, Error> {
        check_request(&request, &self.limits, &record.peer.activity)?;
        if let Some(health) = self.health.as_ref().filter(|health| health.answers(&request)) {
            record.is_probe = true;
            return Ok(health.response(&self.lifecycle).map(ResponseBody::Whole));
        }
        let origin = forwarded::origin(record.peer.address, request.headers(), &self.trusted_proxies);
        record.client = origin.client;
        *request.uri_mut() = absolute(&request, &origin)?;
        record.set_target(request.uri());
        remove_hop_by_hop(request.headers_mut());

        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| {
            self.metrics.shed();
            Error::HostOverloaded(self.max_in_flight)
        })?;
        let in_flight = InFlight::new(slot, self.metrics.clone());
        record.in_flight = Some(in_flight.clone());
        if request.version() == Version::HTTP_2 && self.slots.available_permits() > self.max_in_flight as usize / 2 {
            next_turn().await; // others of its connection need not wait for this one's guest
        }
        let (mut head, incoming) = request.into_parts();
        let (body, report) = RequestBody::new(incoming, self.limits.max_body, self.limits.body_timeout)?;
        record.body = Some(report.clone());
        let (mut trace, span) = GuestTrace::new(record.trace_parent, self.spans.clone());
        trace.propagate(&mut head.headers, record.trace_given);
        let (request_id, deadline) = (record.request_id.clone(), record.deadline);
        let context = RequestContext { request_id, trace, span, deadline, guard: in_flight };
        let mut response = self.guest.handle(Request::from_parts(head, body), report, context).await?;
        check_response(&response, &self.limits)?;
        response.headers_mut().remove(ERROR_HEADER); // by it a client tells the host's answers from the component's
        Ok(response.map(ResponseBody::Stream))
    }
}

/// Ends the first turn of a stream of HTTP/2, which its connection takes; its own task polls it again at once. Wakes nobody.
async fn next_turn() {
    let mut is_next = false;
    poll_fn(|_| if std::mem::replace(&mut is_next, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}
