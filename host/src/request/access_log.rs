//! The access log: a line for each request at its end, as far as `--access-log` asks for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::AccessLogMode;
use crate::error::Fault;
use crate::http::trace_context::TraceId;
use crate::telemetry::logs::{DETAIL_MAX, cut};
use crate::telemetry::rate_limit::{Pass, RateLimit};

/// Causes of failures a second that are logged although the access log leaves the request out.
const CAUSES_PER_SECOND: u32 = 10;

/// The most that a line says of what a client chose, in bytes. The longest method that is registered has 17.
const METHOD_MAX: usize = 32;
const PATH_MAX: usize = 4 * 1024;

/// Which requests are logged, and how. Shared by all requests.
#[derive(Debug)]
pub(crate) struct AccessLog {
    mode: AccessLogMode,
    rate: RateLimit,
    causes: RateLimit,
    /// The component's short digest.
    component: String,
}

/// What a line says.
pub(crate) struct AccessLine<'a> {
    /// The id that every answer carries.
    pub(crate) request_id: &'a str,
    /// The trace that the request is part of.
    pub(crate) trace_id: TraceId,
    /// The client: the peer, or who a trusted proxy says it is.
    pub(crate) client: IpAddr,
    /// The request's method.
    pub(crate) method: &'a str,
    /// The request's path; the query is left out, since it may hold a secret.
    pub(crate) path: &'a str,
    /// The status of the answer; 499 where the client left before there was one.
    pub(crate) status: u16,
    /// `ok`, or how it failed.
    pub(crate) reason: &'static str,
    /// Whose fault that is.
    pub(crate) fault: Option<Fault>,
    /// The cause of a failure, for people.
    pub(crate) detail: Option<&'a str>,
    /// Bytes of the response body that were sent.
    pub(crate) bytes: u64,
    /// Bytes of the request body that were received.
    pub(crate) received: u64,
    /// From the request's head to the last byte of its response.
    pub(crate) duration: Duration,
    /// From the request's head to the head of its response.
    pub(crate) first_byte: Option<Duration>,
}

impl AccessLog {
    /// `component` is the short digest of what is served.
    pub(crate) fn new(mode: AccessLogMode, component: String) -> Arc<Self> {
        let rate = match mode {
            AccessLogMode::PerSecond(rate) => rate,
            _ => u32::MAX,
        };
        Arc::new(Self { mode, rate: RateLimit::new(rate), causes: RateLimit::new(CAUSES_PER_SECOND), component })
    }

    /// Logs a request that is over, or counts it as left out.
    pub(crate) fn write(&self, line: &AccessLine<'_>) {
        let left_out = match (self.mode, self.rate.pass()) {
            (AccessLogMode::Off, _) | (_, Pass::No) => return self.write_cause(line),
            (AccessLogMode::Errors, _) if line.fault.is_none() && line.status < 500 => return,
            (_, Pass::Yes { dropped_before }) => (dropped_before > 0).then_some(dropped_before),
        };
        let AccessLine { request_id, client, method, path, status, reason, detail, bytes, received, .. } = *line;
        let (method, path) = (&*cut(method, METHOD_MAX), &*cut(path, PATH_MAX));
        let detail = detail.map(|detail| cut(detail, DETAIL_MAX));
        let detail = detail.as_deref();
        let (seconds, component) = (line.duration.as_secs_f64(), self.component.as_str());
        let first_byte = line.first_byte.map(|first_byte| first_byte.as_secs_f64());
        let trace_id = tracing::field::display(line.trace_id);
        if matches!(line.fault, Some(Fault::Guest | Fault::Host)) {
            tracing::warn!(target: "access", request_id, trace_id, %client, method, path, status, reason, bytes, received, seconds, first_byte, component, detail, left_out, "failed");
        } else {
            tracing::info!(target: "access", request_id, trace_id, %client, method, path, status, reason, bytes, received, seconds, first_byte, component, detail, left_out, "served");
        }
    }

    /// Without an access log the cause of a failure, such as a trap's backtrace, would be nowhere.
    fn write_cause(&self, line: &AccessLine<'_>) {
        if line.fault != Some(Fault::Guest) && line.reason != "host_internal" {
            return;
        }
        if let Pass::Yes { dropped_before } = self.causes.pass() {
            let left_out = (dropped_before > 0).then_some(dropped_before);
            let AccessLine { request_id, reason, detail, .. } = *line;
            let detail = detail.map(|text| cut(text, DETAIL_MAX));
            tracing::warn!(request_id, reason, detail = detail.as_deref(), left_out, "a request failed");
        }
    }
}
