//! One request's record: what it holds while it lives, and what is counted and logged of it at its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::USER_AGENT;
use hyper::{Method, Request, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::access_log::{AccessLine, AccessLog};
use super::in_flight::InFlight;
use super::request_id::request_id;
use crate::config::Limits;
use crate::error::{Error, Fault};
use crate::http::request_body::BodyReport;
use crate::http::response_body::BodyObserver;
use crate::http::trace_context::TraceParent;
use crate::telemetry::metrics::{LastFailure, Metrics};
use crate::telemetry::spans::{Span, Spans, method_name};
use crate::transport::activity::Activity;
use crate::transport::deadline::AbortTime;

/// The status in the log of a request whose client left before there was one; nginx made it the custom.
const NO_ANSWER: u16 = 499;

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// What its connection does.
    pub(crate) activity: Arc<Activity>,
}

impl Peer {
    /// The other end of a connection, and what the connection does.
    pub(crate) fn new(address: SocketAddr, activity: Arc<Activity>) -> Self {
        Self { address, activity }
    }
}

/// What the log line of a request says, gathered on the way. It is written when the record is dropped: at the last byte
/// of the response, or when the client has left.
#[derive(Debug)]
pub(crate) struct Record {
    /// For every answer, the log and the guest.
    pub(crate) request_id: Arc<str>,
    /// Its trace, and the span that is the parent of what happens for it.
    pub(crate) trace_parent: TraceParent,
    /// Whether it is for the host itself: then it says nothing of the component, and is not counted.
    pub(crate) is_probe: bool,
    /// Whether the client sent a valid `traceparent`, so that its own headers can be passed on as they are.
    pub(crate) trace_given: bool,
    /// The other end of the connection.
    pub(crate) peer: Peer,
    /// The client: the peer, or who a trusted proxy says it is.
    pub(crate) client: IpAddr,
    /// When the request must be over.
    pub(crate) deadline: Instant,
    /// When a response that is not read is aborted.
    pub(crate) abort_time: Arc<AbortTime>,
    /// Holds the request's slot.
    pub(crate) in_flight: Option<Arc<InFlight>>,
    /// How its body goes, where it was passed to the guest.
    pub(crate) body: Option<BodyReport>,
    method: Method,
    path: String,
    started: Instant,
    write_timeout: Duration,
    access_log: Arc<AccessLog>,
    metrics: Arc<Metrics>,
    span: Option<Span>,
    /// The target as the guest sees it, where a span is recorded.
    target: Option<Uri>,
    status: u16,
    first_byte: Option<Duration>,
    bytes: u64,
    /// Whether all of its body is made, and only the client has something left to do.
    made: bool,
    finished: bool,
    failure: Option<Failure>,
}

/// How a request failed.
#[derive(Debug)]
struct Failure {
    reason: &'static str,
    fault: Fault,
    detail: String,
}

impl Record {
    /// A request has begun.
    pub(crate) fn new<B>(
        peer: Peer,
        request: &Request<B>,
        limits: &Limits,
        access_log: Arc<AccessLog>,
        metrics: Arc<Metrics>,
        spans: Option<&Spans>,
    ) -> Self {
        peer.activity.begin();
        let started = Instant::now();
        let given = TraceParent::from_headers(request.headers());
        let span = spans.map(|spans| server_span(spans, request, &peer, given));
        let trace_parent = span.as_ref().map(Span::trace_parent).or(given).unwrap_or_else(TraceParent::random);
        Self {
            request_id: request_id(request.headers()),
            trace_parent,
            trace_given: given.is_some(),
            is_probe: false,
            client: peer.address.ip(),
            peer,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            started,
            deadline: started + limits.deadline,
            write_timeout: limits.write_timeout,
            abort_time: Arc::default(),
            access_log,
            metrics,
            span,
            target: None,
            status: NO_ANSWER,
            first_byte: None,
            bytes: 0,
            made: false,
            finished: false,
            failure: None,
            in_flight: None,
            body: None,
        }
    }

    /// Its target with scheme and authority, as the guest sees it, for the span.
    pub(crate) fn set_target(&mut self, target: &Uri) {
        if self.span.as_ref().is_some_and(Span::is_recording) {
            self.target = Some(target.clone());
        }
    }

    /// The head of its response is ready.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        let after = self.started.elapsed();
        if !self.is_probe {
            self.metrics.first_byte(after);
        }
        self.first_byte = Some(after);
        self.status = status.as_u16();
    }

    /// It failed.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.failure = Some(Failure { reason: error.reason(), fault: error.fault(), detail: error.detail() });
    }

    /// Why a response that is not finished was dropped: its client read too slowly, or left.
    fn abandoned(&self) -> Error {
        let now = Instant::now();
        if self.status != NO_ANSWER && !self.made && now >= self.deadline {
            Error::GuestDeadline
        } else if self.peer.activity.is_stalled() || self.abort_time.is_due(now) {
            Error::ClientStalled
        } else {
            Error::ClientGone
        }
    }
}

impl BodyObserver for Record {
    fn sent(&mut self, bytes: usize, left: Option<usize>) {
        self.bytes += bytes as u64;
        self.made = left.is_some();
        let at = self.deadline.min(Instant::now() + self.write_timeout);
        self.abort_time.sent(at, left.map(|left| left + bytes), &mut self.in_flight);
    }

    fn waiting(&mut self) {
        self.abort_time.lift(); // the guest's run has the deadline itself
    }

    fn finish(&mut self, result: Result<(), &Error>) {
        self.finished = true;
        // The last frame may still wait for its client: over HTTP/2 hyper holds it, and this with it.
        if let Err(error) = result {
            self.abort_time.lift();
            self.fail(error);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.failure.is_none() {
            if !self.finished {
                self.fail(&self.abandoned());
            } else if self.abort_time.is_aborted() || self.peer.activity.is_stalled() {
                self.fail(&Error::ClientStalled); // all but the last frame was taken
            }
        }
        self.abort_time.end();
        self.peer.activity.end();
        let duration = self.started.elapsed();
        let failure = self.failure.take();
        let fault = failure.as_ref().map(|failure| failure.fault);
        let reason = failure.as_ref().map_or("ok", |failure| failure.reason);
        self.end_span(reason, fault);
        if !self.is_probe {
            self.metrics.request_ended(self.status, reason, duration);
        }
        self.access_log.write(&AccessLine {
            request_id: &self.request_id,
            trace_id: self.trace_parent.trace_id,
            client: self.client,
            method: self.method.as_str(),
            path: &self.path,
            status: self.status,
            reason,
            fault,
            detail: failure.as_ref().map(|failure| failure.detail.as_str()),
            bytes: self.bytes,
            received: self.body.as_ref().map_or(0, BodyReport::received),
            duration,
            first_byte: self.first_byte,
        });
        if failure.is_some() {
            self.metrics.failed(LastFailure {
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
    fn end_span(&mut self, reason: &'static str, fault: Option<Fault>) {
        let Some(span) = self.span.as_mut().filter(|span| span.is_recording()) else { return };
        let target = self.target.take().unwrap_or_default();
        span.set("url.scheme", target.scheme_str().unwrap_or("http").to_owned());
        if let Some(host) = target.host() {
            span.set("server.address", host.to_owned());
        }
        if let Some(port) = target.port_u16() {
            span.set("server.port", i64::from(port));
        }
        span.set("client.address", self.client.to_string());
        span.set("http.response.status_code", i64::from(self.status));
        span.set("http.response.body.size", i64::try_from(self.bytes).unwrap_or(i64::MAX));
        let received = self.body.as_ref().map_or(0, BodyReport::received);
        span.set("http.request.body.size", i64::try_from(received).unwrap_or(i64::MAX));
        span.set("taffrail.reason", reason);
        span.set("taffrail.request_id", self.request_id.to_string());
        if matches!(fault, Some(Fault::Guest | Fault::Host)) {
            span.fail(reason);
        } else if self.status >= 500 {
            span.fail(self.status.to_string());
        }
    }
}

/// The span of a request. The query is left out, as from the log: it may hold a secret.
fn server_span<B>(spans: &Spans, request: &Request<B>, peer: &Peer, given: Option<TraceParent>) -> Span {
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

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::config::AccessLogMode;
    use crate::telemetry::metrics::ComponentInfo;

    const DEADLINE: Duration = Duration::from_secs(30);
    const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

    /// A request that has begun, and where it will be counted.
    fn record() -> (Record, Arc<Metrics>) {
        let second = Duration::from_secs(1);
        let limits = Limits {
            deadline: DEADLINE,
            write_timeout: WRITE_TIMEOUT,
            max_in_flight: None,
            max_connections: None,
            header_timeout: second,
            idle_timeout: second,
            body_timeout: second,
            max_header_size: 1,
            max_headers: 1,
            max_body: 1,
            max_response_header_size: 1,
            http2_max_streams: 1,
        };
        let component = ComponentInfo { digest: String::new(), name: String::new(), world: String::new() };
        let metrics = Metrics::new(component);
        let peer = Peer::new(([127, 0, 0, 1], 1).into(), Activity::new());
        let access_log = AccessLog::new(AccessLogMode::Off, String::new());
        (Record::new(peer, &Request::new(()), &limits, access_log, metrics.clone(), None), metrics)
    }

    fn outcomes(metrics: &Metrics) -> Vec<(u16, String, u64)> {
        metrics.summary().outcomes
    }

    fn one(code: u16, reason: &str) -> Vec<(u16, String, u64)> {
        vec![(code, reason.to_owned(), 1)]
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_counted_once_with_how_it_ended() {
        let (mut record, metrics) = record();
        record.answered(StatusCode::CREATED);
        record.sent(5, None);
        record.finish(Ok(()));
        assert!(outcomes(&metrics).is_empty(), "it is not over before it is dropped");
        drop(record);
        assert_eq!(outcomes(&metrics), one(201, "ok"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_499_before_the_head_and_keeps_its_status_after_it() {
        let (record, metrics) = record();
        drop(record);
        assert_eq!(outcomes(&metrics), one(499, "client_gone"));
        let (mut record, metrics) = self::record();
        record.answered(StatusCode::OK);
        record.sent(5, None);
        drop(record);
        assert_eq!(outcomes(&metrics), one(200, "client_gone"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_is_aborted_at_the_deadline_and_lifted_while_the_guest_is_waited_for() {
        let (mut record, metrics) = record();
        record.answered(StatusCode::OK);
        record.sent(5, None);
        let now = Instant::now();
        assert!(!record.abort_time.is_due(now + DEADLINE - Duration::from_millis(1)));
        assert!(record.abort_time.is_due(now + DEADLINE), "the deadline comes before --write-timeout");
        record.waiting();
        assert!(!record.abort_time.is_due(now + WRITE_TIMEOUT));
        advance(DEADLINE).await;
        drop(record);
        assert_eq!(outcomes(&metrics), one(200, "guest_deadline"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_to_blame_for_the_last_frame_that_it_does_not_take() {
        for left in [0, 7] {
            let (mut record, metrics) = record();
            record.answered(StatusCode::OK);
            record.sent(5, Some(left));
            if left == 0 {
                record.finish(Ok(()));
            }
            advance(DEADLINE).await;
            assert!(record.abort_time.is_due(Instant::now()), "it is waited for no longer than any other frame");
            record.abort_time.abort();
            drop(record);
            assert_eq!(
                outcomes(&metrics),
                one(200, "client_stalled"),
                "whatever time is over: the guest has done its part"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_client_is_to_blame_for_what_it_did_not_read() {
        let (mut record, metrics) = record();
        record.answered(StatusCode::OK);
        record.sent(5, None);
        record.peer.activity.stalled();
        drop(record);
        assert_eq!(outcomes(&metrics), one(200, "client_stalled"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_is_not_counted() {
        let (mut record, metrics) = record();
        record.is_probe = true;
        record.answered(StatusCode::OK);
        record.finish(Ok(()));
        drop(record);
        assert!(outcomes(&metrics).is_empty());
    }
}
