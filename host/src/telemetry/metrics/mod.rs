//! Every metric: names, labels, buckets, and how they are written. What an operator asks in a bad minute is whose fault
//! it is and which version has it, so `reason` (the error contract's, `ok` otherwise) and `component` (the digest's first
//! 12 digits) are labels. No label ever holds what a client chose: no path, no host, no method. The number of series is
//! bounded by the number of reasons and of statuses.

mod process;

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Method;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use process::Process;

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
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of [`Metrics::prometheus_text`].
pub const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the process. Counting is lock-free or nearly so.
#[derive(Debug)]
pub struct Metrics {
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
    outbound: Family<OutboundOutcome, Counter>,
    spans_ended: Counter,
    spans_exported: Family<ExportOutcome, Counter>,
    total: AtomicU64,
    failures: Mutex<VecDeque<Failure>>,
}

/// A request that failed, for people.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When it ended.
    pub at: Instant,
    /// Whose fault, and which.
    pub reason: &'static str,
    /// Its method, which the client chose.
    pub method: Method,
    /// Its path, which the client chose.
    pub path: String,
    /// Its id.
    pub request_id: Arc<str>,
}

/// The figures of the status page.
#[derive(Debug, Default)]
pub struct Summary {
    /// Requests by status and reason, most first.
    pub outcomes: Vec<(u16, String, u64)>,
    /// Half of the requests took no longer, in seconds, as far as the buckets tell.
    pub median: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99: Option<f64>,
    /// Requests with the component.
    pub in_flight: i64,
    /// How many may be.
    pub limit: i64,
}

/// What is known of the component, for the labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ComponentInfo {
    /// SHA-256 in hex.
    pub digest: String,
    /// The file's name without its extension.
    pub name: String,
    /// The world that it is served as.
    pub world: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    code: u16,
    reason: &'static str,
}

/// Why an instance that is reused has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
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
    pub fn new(component: ComponentInfo) -> Arc<Self> {
        let mut root = Registry::default();
        root.register_collector(Box::new(Process));
        let all = root.sub_registry_with_prefix("taffrail");
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
            outbound,
            spans_ended,
            spans_exported,
            total: AtomicU64::new(0),
            failures: Mutex::default(),
            registry: root,
        })
    }

    /// A request is over, its last byte sent or not.
    pub fn request_ended(&self, code: u16, reason: &'static str, whole: Duration) {
        self.total.fetch_add(1, Relaxed);
        self.requests.get_or_create(&Outcome { code, reason }).inc();
        self.duration.observe(whole.as_secs_f64());
    }

    /// The head of a response is ready.
    pub fn first_byte(&self, after: Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }

    /// A request was refused because too many are in flight.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// A connection was accepted. It counts as open until the guard is dropped.
    pub fn connection_opened(self: &Arc<Self>) -> Open {
        self.connections.inc();
        Open(self.clone())
    }

    /// How many requests may be in flight.
    pub fn set_limit(&self, limit: u32) {
        self.in_flight.limit.set(i64::from(limit));
    }

    /// A request is with the guest. It counts until [`Metrics::left`].
    pub fn entered(&self) {
        self.in_flight.now.inc();
    }

    /// Its guest and its response have ended.
    pub fn left(&self) {
        self.in_flight.now.dec();
    }

    /// An instance was made.
    pub fn instantiated(&self, took: Duration) {
        self.instantiate.observe(took.as_secs_f64());
    }

    /// A guest ended: how long it had a thread.
    pub fn guest_busy(&self, time: Duration) {
        self.guest_busy.inc_by(time.as_secs_f64());
    }

    /// An instance ended: the memory that it had then, in bytes.
    pub fn guest_memory(&self, bytes: usize) {
        self.guest_memory.observe(bytes as f64);
    }

    /// An instance that is reused has ended.
    pub fn instance_retired(&self, why: Retired) {
        let reason = match why {
            Retired::Requests => "requests",
            Retired::Memory => "memory",
            Retired::Idle => "idle",
            Retired::Failed => "failed",
        };
        self.instances_retired.get_or_create(&RetiredLabel { reason }).inc();
    }

    /// The component asked for something outside.
    pub fn outbound(&self, reason: &'static str) {
        self.outbound.get_or_create(&OutboundOutcome { reason }).inc();
    }

    /// A sampled span ended.
    pub fn span_ended(&self) {
        self.spans_ended.inc();
    }

    /// Spans were sent to a collector.
    pub fn spans_exported(&self, spans: usize, taken: bool) {
        let result = if taken { "ok" } else { "failed" };
        self.spans_exported.get_or_create(&ExportOutcome { result }).inc_by(spans as u64);
    }

    /// Keeps a failure for the status page, in the place of the oldest one.
    pub fn failed(&self, failure: Failure) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() == LAST_FAILURES {
            failures.pop_front();
        }
        failures.push_back(failure);
    }

    /// The last failures, oldest first.
    pub fn last_failures(&self) -> Vec<Failure> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Requests that have ended.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// The figures of the status page, read from what a scraper would get: the two cannot differ.
    pub fn summary(&self) -> Summary {
        let text = self.open_metrics();
        let label = |labels: &str, name: &str| {
            let value = labels.split_once(&format!("{name}=\""))?.1;
            Some(value.split('"').next().unwrap_or_default().to_owned())
        };
        let mut summary =
            Summary { in_flight: self.in_flight.now.get(), limit: self.in_flight.limit.get(), ..Summary::default() };
        let mut buckets = Vec::new();
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            if let Some(labels) = series.strip_prefix("taffrail_http_requests_total{") {
                let code = label(labels, "code").and_then(|code| code.parse().ok());
                if let (Some(code), Some(reason), Ok(count)) = (code, label(labels, "reason"), value.parse()) {
                    summary.outcomes.push((code, reason, count));
                }
            } else if let Some(labels) = series.strip_prefix("taffrail_http_request_duration_seconds_bucket{") {
                let bound = label(labels, "le").map(|bound| bound.parse().unwrap_or(f64::INFINITY));
                buckets.extend(bound.zip(value.parse::<f64>().ok()));
            }
        }
        summary.outcomes.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
        summary.median = quantile(&buckets, 0.5);
        summary.p99 = quantile(&buckets, 0.99);
        summary
    }

    /// All of it as OpenMetrics 1.0.
    pub fn open_metrics(&self) -> String {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            text.clear(); // writing into a String does not fail
        }
        text
    }

    /// All of it as Prometheus text 0.0.4, which names a counter with its `_total`.
    pub fn prometheus_text(&self) -> String {
        let open = self.open_metrics();
        let mut counters = Vec::new();
        for line in open.lines() {
            counters.extend(line.strip_prefix("# TYPE ").and_then(|line| line.strip_suffix(" counter")));
        }
        let mut text = String::with_capacity(open.len());
        for line in open.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some("EOF" | "UNIT"), ..) => continue,
                (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(&name) => {
                    let _ = writeln!(text, "# {kind} {name}_total {rest}");
                }
                _ => {
                    let _ = writeln!(text, "{line}");
                }
            }
        }
        text
    }
}

/// As Prometheus' `histogram_quantile`: linear within a bucket; beyond the last bound, that bound.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let rank = buckets.last()?.1 * share;
    let (mut below, mut before) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank && *count > 0.0 {
            let within = (rank - before) / (count - before).max(1.0);
            return Some(if bound.is_finite() { below + (bound - below) * within } else { below });
        }
        (below, before) = (*bound, *count);
    }
    None
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// An open connection.
#[derive(Debug)]
pub struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Requests in flight, their limit, and the share of it: what an autoscaler can use.
#[derive(Debug, Default)]
struct InFlightGauge {
    now: Gauge,
    limit: Gauge,
}

impl Collector for InFlightGauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (now, limit) = (self.now.get(), self.limit.get());
        gauge(&mut encoder, "requests_in_flight", "Requests with the component", now)?;
        gauge(&mut encoder, "requests_in_flight_limit", "Requests that may be with the component at a time", limit)?;
        let share = now as f64 / limit.max(1) as f64;
        gauge(&mut encoder, "saturation_ratio", "Requests in flight divided by their limit", share)
    }
}

fn gauge<N>(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: N) -> fmt::Result
where
    N: prometheus_client::encoding::EncodeGaugeValue,
{
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_prometheus_own() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
        let buckets = [(1.0, 50.0), (2.0, 90.0), (4.0, 100.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.5), Some(1.0));
        assert_eq!(quantile(&buckets, 0.7), Some(1.5));
        assert_eq!(quantile(&buckets, 0.99), Some(3.8));
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 10.0)], 0.5), Some(1.0));
    }
}
