//! The outbound calls of one guest, as wasmtime-wasi-http asks for them.

use std::sync::{Arc, LazyLock};

use hyper::header::HeaderName;
use hyper::{Request, Uri};
use tokio::sync::Semaphore;
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, RequestOptions, Result, WasiBody, WasiHttpHooks};

use super::call::{Exchange, OutboundCall, Permits, send};
use super::client::{OutboundClient, SERVER_MAX, WARNINGS_PER_SECOND};
use super::refusal::Refusal;
use crate::http::request_body::BodyReport;
use crate::telemetry::logs::cut;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::rate_limit::{Pass, RateLimit};
use crate::telemetry::spans::GuestTrace;

/// What a guest may hand over in one write, in bytes. Wasmtime would take 1 MiB.
const WRITE_MAX: usize = 64 * 1024;
/// What a guest may have written of a body that nobody has read yet, in bytes: Wasmtime keeps two writes.
pub(crate) const BODY_AHEAD: usize = 2 * WRITE_MAX;

/// Refused calls that are logged each second where nobody may be called; every one is counted.
static REFUSALS: LazyLock<RateLimit> = LazyLock::new(|| RateLimit::new(WARNINGS_PER_SECOND));

/// Logs a call where nobody may be called, as far as the rate allows.
fn log_refusal(uri: &Uri) {
    if let Pass::Yes { dropped_before } = REFUSALS.pass() {
        let left_out = (dropped_before > 0).then_some(dropped_before);
        let host = uri.host().map(|host| cut(host, SERVER_MAX));
        tracing::info!(host = host.as_deref(), left_out, "outbound request: {}", Refusal::NotAllowed.advice());
    }
}

/// The outbound calls of one guest.
pub(crate) struct OutboundHooks {
    client: Option<Arc<OutboundClient>>,
    metrics: Arc<Metrics>,
    trace: GuestTrace,
    report: BodyReport,
    slots: Option<Arc<Semaphore>>,
    /// No field more may be made.
    fields_are_full: bool,
}

impl OutboundHooks {
    /// Hooks of a guest that has made no call yet. Without a client every call is refused.
    pub(crate) fn new(
        client: Option<Arc<OutboundClient>>,
        metrics: Arc<Metrics>,
        trace: GuestTrace,
        report: BodyReport,
    ) -> Self {
        Self { client, metrics, trace, report, slots: None, fields_are_full: false }
    }

    /// The guest now runs for another request.
    pub(crate) fn hand_over(&mut self, trace: GuestTrace, report: BodyReport) {
        self.trace = trace;
        self.report = report;
        self.slots = None;
    }

    /// The guest makes no field more: each is forbidden.
    pub(crate) fn refuse_fields(&mut self) {
        self.fields_are_full = true;
    }

    /// The request with what it needs to go out, or why it may not.
    fn admit(&mut self, request: &Request<WasiBody>) -> std::result::Result<(Arc<OutboundClient>, Permits), Refusal> {
        let Some(client) = self.client.clone().filter(|client| client.allows(request.uri())) else {
            return Err(Refusal::NotAllowed);
        };
        let limit = client.limits.max_per_request as usize;
        let own = self.slots.get_or_insert_with(|| Arc::new(Semaphore::new(limit))).clone().try_acquire_owned();
        let all = client.slots.clone().try_acquire_owned();
        match (own, all) {
            (Ok(own), Ok(all)) => Ok((client, (own, all))),
            _ => Err(Refusal::TooMany),
        }
    }
}

impl WasiHttpHooks for OutboundHooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        self.fields_are_full || DEFAULT_FORBIDDEN_HEADERS.contains(name) // the default does the same behind an allocation for every header
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
        let (client, permits) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.metrics.outbound(refusal.reason());
                let uri = request.uri();
                match &self.client {
                    Some(client) => client.warn(refusal.reason(), uri, refusal.advice()),
                    None => log_refusal(uri),
                }
                return Box::new(async move { Err(refusal.into()) });
            }
        };
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let span = self.trace.propagate_outbound(&method, &uri, request.headers_mut());
        let (metrics, report) = (self.metrics.clone(), self.report.clone());
        let call = OutboundCall::new(span, metrics, report, permits);
        Box::new(send(client, request, options.unwrap_or_default(), call))
    }
}
