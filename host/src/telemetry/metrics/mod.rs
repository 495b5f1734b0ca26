//! Every metric: names, labels, buckets, and how they are written. What an operator asks in a bad minute is whose fault
//! it is and which version has it, so `reason` (the error contract's, `ok` otherwise) and `component` (the digest's first
//! 12 digits) are labels. No label ever holds what a client chose: no path, no host, no method. The number of series is
//! bounded by the number of reasons and of statuses.

mod gauges;
pub(crate) mod host;
mod process;
mod summary;
mod text;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use gauges::InFlightGauge;
use host::HostCounters;
use process::Process;
use summary::summarize;

pub(crate) use summary::Summary;

/// From half a millisecond (a small guest answers in less) to the default deadline, each about twice the one before, so
/// that a quantile is never off by more than half.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];
/// An instantiation takes microseconds when all is well.
const INSTANTIATE_SECONDS: [f64; 10] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 1.0];
/// From one Wasm page to the default limit of a guest, in bytes.
const MEMORY_BYTES: [f64; 8] =
    [65_536.0, 1_048_576.0, 2_097_152.0, 4_194_304.0, 16_777_216.0, 33_554_432.0, 67_108_864.0, 134_217_728.0];

/// Failures that the status page shows.
const LAST_FAILURES: usize = 20;

/// The content type of [`Metrics::open_metrics`].
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of [`Metrics::prometheus_text`].
pub(crate) const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the process. Counting is lock-free or nearly so.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    duration: Histogram,
    first_byte: Histogram,
    shed: Counter,
    connections: Gauge,
    in_flight: Arc<InFlightGauge>,
    instantiate: Histogram,
    guest_busy: Counter<f64, AtomicU64>,
    guest_memory: Histogram,
    instances_retired: Family<RetiredLabel, Counter>,
    late_failures: Family<ReasonLabel, Counter>,
    outbound: Family<OutboundOutcome, Counter>,
    spans_ended: Counter,
    spans_exported: Family<ExportOutcome, Counter>,
    total: AtomicU64,
    failures: Mutex<VecDeque<LastFailure>>,
}

/// A request that failed, for people.
#[derive(Debug, Clone)]
pub(crate) struct LastFailure {
    /// When it ended.
    pub(crate) at: Instant,
    /// Its reason.
    pub(crate) reason: &'static str,
    /// Its method, which the client chose.
    pub(crate) method: Method,
    /// Its path, which the client chose.
    pub(crate) path: String,
    /// Its id.
    pub(crate) request_id: Arc<str>,
}

/// What is known of the component, for the labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ComponentInfo {
    /// SHA-256 in hex.
    pub(crate) digest: String,
    /// The file's name without its extension.
    pub(crate) name: String,
    /// The world that it is served as.
    pub(crate) world: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    code: u16,
    reason: &'static str,
}

/// Why an instance that is reused has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retired {
    /// It has answered as many requests as it may.
    Requests,
    /// It has grown too large, or another needed its memory.
    Memory,
    /// It has waited too long.
    Idle,
    /// It failed, or its time was over.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetiredLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutboundOutcome {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExportOutcome {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildInfo {
    version: &'static str,
}

impl Metrics {
    /// Metrics of a host that serves this component.
    pub(crate) fn new(component: ComponentInfo) -> Arc<Self> {
        let mut root = Registry::default();
        root.register_collector(Box::new(Process));
        let all = root.sub_registry_with_prefix("taffrail");
        all.register_collector(Box::new(HostCounters));
        let build = Family::<BuildInfo, Gauge>::default();
        build.get_or_create(&BuildInfo { version: env!("CARGO_PKG_VERSION") }).set(1);
        all.register("build_info", "The host's version", build);
        let info = Family::<ComponentInfo, Gauge>::default();
        info.get_or_create(&component).set(1);
        all.register("component_info", "The component that is served", info);
        let connections = register(all, "connections_open", "Open traffic connections", Gauge::default());
        let ended = "Sampled spans that have ended; those that are never exported were dropped, as the queue was full";
        let spans_ended = register(all, "spans_ended", ended, Counter::default());
        let exported = "Spans that a collector took (ok) or did not (failed)";
        let spans_exported = register(all, "spans_exported", exported, Family::default());
        let in_flight = Arc::<InFlightGauge>::default();
        all.register_collector(Box::new(in_flight.clone()));

        let short: String = component.digest.chars().take(12).collect();
        let registry = all.sub_registry_with_label(("component".into(), short.into()));
        let requests = Family::default();
        let requests =
            register(registry, "http_requests", "Requests by status and by reason (ok, or whose fault)", requests);
        let whole = "Time from a request's head to the last byte of its response";
        let duration = register(registry, "http_request_duration_seconds", whole, Histogram::new(SECONDS));
        let first = "Time from a request's head to the head of its response";
        let first_byte = register(registry, "time_to_first_byte_seconds", first, Histogram::new(SECONDS));
        let full = "Requests answered 503 because as many as allowed were in flight";
        let shed = register(registry, "requests_shed", full, Counter::default());
        let fresh = "Time to make a fresh instance of the component";
        let instantiate = register(registry, "guest_instantiate_seconds", fresh, Histogram::new(INSTANTIATE_SECONDS));
        let busy = "Time for which guests had a thread, by the clock on the wall around each turn";
        let guest_busy = register(registry, "guest_cpu_seconds", busy, Counter::default());
        let peak = "Linear memory of an instance when it ended, which is its peak";
        let guest_memory = register(registry, "guest_memory_peak_bytes", peak, Histogram::new(MEMORY_BYTES));
        let retired = "Reused instances that have ended: after their requests, too large, idle, or failed";
        let instances_retired = register(registry, "guest_instances_retired", retired, Family::default());
        let late = "Guests that failed after their response, by reason; the client has its answer";
        let late_failures = register(registry, "guest_late_failures", late, Family::default());
        let asked = "Outbound requests of the component by reason";
        let outbound = register(registry, "outbound_requests", asked, Family::default());
        Arc::new(Self {
            requests,
            duration,
            first_byte,
            shed,
            connections,
            in_flight,
            instantiate,
            guest_busy,
            guest_memory,
            instances_retired,
            late_failures,
            outbound,
            spans_ended,
            spans_exported,
            total: AtomicU64::new(0),
            failures: Mutex::default(),
            registry: root,
        })
    }

    /// A request is over, its last byte sent or not.
    pub(crate) fn request_ended(&self, code: u16, reason: &'static str, whole: Duration) {
        self.total.fetch_add(1, Relaxed);
        self.requests.get_or_create(&Outcome { code, reason }).inc();
        self.duration.observe(whole.as_secs_f64());
    }

    /// The head of a response is ready.
    pub(crate) fn first_byte(&self, after: Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }

    /// A request was refused because too many are in flight.
    pub(crate) fn shed(&self) {
        self.shed.inc();
    }

    /// A connection was accepted. It counts as open until the guard is dropped.
    pub(crate) fn connection_opened(self: &Arc<Self>) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.clone())
    }

    /// How many requests may be in flight.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.in_flight.limit.set(i64::from(limit));
    }

    /// A request is with the guest. It counts until [`Metrics::left`].
    pub(crate) fn entered(&self) {
        self.in_flight.now.inc();
    }

    /// Its guest and its response have ended.
    pub(crate) fn left(&self) {
        self.in_flight.now.dec();
    }

    /// An instance was made.
    pub(crate) fn instantiated(&self, took: Duration) {
        self.instantiate.observe(took.as_secs_f64());
    }

    /// A guest ended: how long it had a thread.
    pub(crate) fn guest_busy(&self, time: Duration) {
        self.guest_busy.inc_by(time.as_secs_f64());
    }

    /// A guest failed when its response was out.
    pub(crate) fn guest_failed_late(&self, reason: &'static str) {
        self.late_failures.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// An instance ended: the memory that it had then, in bytes.
    pub(crate) fn guest_memory(&self, bytes: usize) {
        self.guest_memory.observe(bytes as f64);
    }

    /// An instance that is reused has ended.
    pub(crate) fn instance_retired(&self, why: Retired) {
        let reason = match why {
            Retired::Requests => "requests",
            Retired::Memory => "memory",
            Retired::Idle => "idle",
            Retired::Failed => "failed",
        };
        self.instances_retired.get_or_create(&RetiredLabel { reason }).inc();
    }

    /// The component asked for something outside.
    pub(crate) fn outbound(&self, reason: &'static str) {
        self.outbound.get_or_create(&OutboundOutcome { reason }).inc();
    }

    /// A sampled span ended.
    pub(crate) fn span_ended(&self) {
        self.spans_ended.inc();
    }

    /// Spans were sent to a collector.
    pub(crate) fn spans_exported(&self, spans: usize, taken: bool) {
        let result = if taken { "ok" } else { "failed" };
        self.spans_exported.get_or_create(&ExportOutcome { result }).inc_by(spans as u64);
    }

    /// Keeps a failure for the status page, in the place of the oldest one.
    pub(crate) fn failed(&self, failure: LastFailure) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() == LAST_FAILURES {
            failures.pop_front();
        }
        failures.push_back(failure);
    }

    /// The last failures, oldest first.
    pub(crate) fn last_failures(&self) -> Vec<LastFailure> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Requests that have ended.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// The figures of the status page.
    pub(crate) fn summary(&self) -> Summary {
        summarize(&self.open_metrics(), self.in_flight.now.get(), self.in_flight.limit.get())
    }

    /// The exposition as OpenMetrics 1.0.
    pub(crate) fn open_metrics(&self) -> String {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            text.clear(); // writing into a String does not fail
        }
        text
    }

    /// The exposition as Prometheus text 0.0.4.
    pub(crate) fn prometheus_text(&self) -> String {
        text::from_open_metrics(&self.open_metrics())
    }
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<Metrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
