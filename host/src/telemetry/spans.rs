//! Spans for an OpenTelemetry collector, by OTLP over HTTP with protobuf. Only where `OTEL_EXPORTER_OTLP_ENDPOINT` is set;
//! the standard variables say the rest. A span that has ended goes into a bounded queue, which a thread of its own
//! empties: a collector that is slow, down or wrong costs spans, and never a request its time.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanData};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::allowlist;
use crate::logs::{Pass, RateLimit};
use crate::metrics::Metrics;
use crate::tls;
use crate::trace::{self, Place};

/// The standard's default for one export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last spans may take when the host ends.
const LAST_EXPORT: Duration = Duration::from_secs(2);
/// The largest answer of a collector that is read, in bytes. What it says is a line or two.
const ANSWER_MAX: usize = 64 * 1024;

/// The samplers of the specification that the SDK has.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// What the standard variables say, as far as it is not the SDK's own business.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    endpoint: String,
    timeout: Duration,
    ca_file: Option<PathBuf>,
}

impl Settings {
    /// `None` when nothing is to be exported. The SDK would take a wrong value for its default without a word.
    fn read(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let traces = |name: &str| {
            let (own, all) = (format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}"));
            variable(&own).map(|value| (own, value)).or_else(|| Some((all.clone(), variable(&all)?)))
        };
        let Some((name, endpoint)) = traces("ENDPOINT") else { return Ok(None) };
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match variable("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => bail!("OTEL_TRACES_EXPORTER: {other:?} is not offered; write otlp or none"),
        }
        if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            bail!("{name}: {endpoint:?} is not a URL; write http://collector:4318, say");
        }
        if let Some((name, protocol)) = traces("PROTOCOL")
            && protocol != "http/protobuf"
        {
            bail!("{name}: {protocol:?} is not offered; write http/protobuf (a collector takes it on port 4318)");
        }
        if let Some((name, compression)) = traces("COMPRESSION")
            && !["gzip", "none"].contains(&compression.as_str())
        {
            bail!("{name}: {compression:?} is not offered; write gzip or none");
        }
        if let Some(sampler) = variable("OTEL_TRACES_SAMPLER") {
            if !SAMPLERS.contains(&sampler.as_str()) {
                bail!("OTEL_TRACES_SAMPLER: {sampler:?} is not offered; write one of {}", SAMPLERS.join(", "));
            }
            let ratio = variable("OTEL_TRACES_SAMPLER_ARG").and_then(|ratio| ratio.parse::<f64>().ok());
            if sampler.ends_with("ratio") && !ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio)) {
                bail!("OTEL_TRACES_SAMPLER_ARG: {sampler} needs the share of traces, a number from 0 to 1");
            }
        }
        let timeout = match traces("TIMEOUT") {
            None => EXPORT_TIMEOUT,
            Some((name, text)) => match text.parse() {
                Ok(milliseconds) if milliseconds > 0 => Duration::from_millis(milliseconds),
                _ => bail!("{name}: {text:?} is not a time; write milliseconds, such as 10000"),
            },
        };
        Ok(Some(Self { endpoint, timeout, ca_file: traces("CERTIFICATE").map(|(_, file)| file.into()) }))
    }
}

/// Makes spans, and has them exported.
#[derive(Debug)]
pub struct Spans {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    metrics: Arc<Metrics>,
}

impl Spans {
    /// Exports as the environment says, or not at all. `service` is who they come from, where `OTEL_SERVICE_NAME` does not
    /// say; `version` is the component's short digest.
    ///
    /// # Errors
    /// The variable that is wrong, and what to write instead.
    pub fn from_environment(service: &str, version: &str, metrics: Arc<Metrics>) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(settings) = Settings::read(|name| env::var(name).ok())? else { return Ok(None) };
        let collector = Collector::new(&settings)?;
        let exporter = SpanExporter::builder().with_http().with_http_client(collector).build();
        let exporter = exporter.context("set up the export of traces")?;
        let exporter = Counted { exporter, metrics: metrics.clone() };
        let mut resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", version.to_owned()))
            .with_attribute(KeyValue::new("taffrail.version", env!("CARGO_PKG_VERSION")));
        let named = |variable: &str, text: &str| env::var(variable).is_ok_and(|value| value.contains(text));
        if !named("OTEL_SERVICE_NAME", "") && !named("OTEL_RESOURCE_ATTRIBUTES", "service.name=") {
            resource = resource.with_service_name(service.to_owned());
        }
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).build())
            .with_resource(resource.build())
            .build();
        tracing::info!(endpoint = settings.endpoint, "exporting traces");
        Ok(Some(Arc::new(Self { tracer: provider.tracer("taffrail"), provider, metrics })))
    }

    /// The span of a request. Its trace goes on from where the client was, if it said so.
    pub fn server(&self, name: &'static str, client: Option<Place>, headers: &HeaderMap) -> Span {
        let state = || headers.get(trace::TRACESTATE)?.to_str().ok()?.parse().ok();
        let parent = client.map(|place| context(place, true, state().unwrap_or_default()));
        self.start(SpanKind::Server, name, parent)
    }

    /// A span within another one.
    pub fn child(&self, kind: SpanKind, name: &'static str, parent: Place) -> Span {
        self.start(kind, name, Some(context(parent, false, TraceState::NONE)))
    }

    fn start(&self, kind: SpanKind, name: &'static str, parent: Option<SpanContext>) -> Span {
        let around = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let builder = self.tracer.span_builder(name).with_kind(kind);
        Span { span: self.tracer.build_with_context(builder, &around), metrics: self.metrics.clone() }
    }

    /// Exports what has ended, for two seconds at the most. What ends later is lost.
    pub async fn finish(self: Arc<Self>) {
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST_EXPORT)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last traces were not exported");
        }
    }
}

fn context(place: Place, remote: bool, state: TraceState) -> SpanContext {
    let (trace, span) = (TraceId::from(place.trace.0), SpanId::from(place.span));
    let flags = if place.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    SpanContext::new(trace, span, flags, remote, state)
}

/// A span that ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    span: opentelemetry_sdk::trace::Span,
    metrics: Arc<Metrics>,
}

impl Span {
    /// Where it is, for what happens within it.
    pub fn place(&self) -> Place {
        let here = self.span.span_context();
        Place {
            trace: trace::TraceId(u128::from_be_bytes(here.trace_id().to_bytes())),
            span: u64::from_be_bytes(here.span_id().to_bytes()),
            sampled: here.is_sampled(),
        }
    }

    /// Whether anybody will see it: attributes of one that is not sampled need not be made.
    pub fn is_recording(&self) -> bool {
        self.span.is_recording()
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(KeyValue::new(name, value));
    }

    /// It failed; `error` is of few values, so that it can be counted by.
    pub fn fail(&mut self, error: impl Into<Value>) {
        self.set("error.type", error);
        self.span.set_status(Status::error(""));
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.is_recording() {
            self.metrics.span_ended();
        }
    }
}

/// The part of a trace that belongs to one guest: what it is told, and what it calls.
#[derive(Debug, Clone)]
pub struct GuestTrace {
    /// Where the guest is, as it is told; all zeros where it runs for several requests at the same time.
    pub place: Place,
    state: Option<HeaderValue>,
    spans: Option<Arc<Spans>>,
}

impl GuestTrace {
    /// A guest within a request, and the span of its run. Without spans it is told of the request's own place.
    pub fn new(request: Place, spans: Option<Arc<Spans>>) -> (Self, Option<Span>) {
        let run = spans.as_ref().map(|spans| spans.child(SpanKind::Internal, "guest", request));
        (Self { place: run.as_ref().map_or(request, Span::place), state: None, spans }, run)
    }

    /// Of a guest that runs for several requests at the same time: what it calls belongs to none of them.
    pub fn of_nobody() -> Self {
        Self { place: Place::NOWHERE, state: None, spans: None }
    }

    /// Tells the guest, in the headers of its request. `given`: the client said where it is, so that nothing needs to be
    /// changed where the host adds no span.
    pub fn hand_on(&mut self, headers: &mut HeaderMap, given: bool) {
        match (&self.spans, given) {
            (None, true) => {}
            (Some(_), true) => self.place.write(headers),
            (_, false) => self.place.begin(headers),
        }
        self.state = headers.get(trace::TRACESTATE).cloned();
    }

    /// Tells a server that the guest calls, in the headers of that request. A guest that has said where it is knows
    /// better; where spans are exported, the call is one. The query is left out of it.
    pub fn call(&self, method: &Method, uri: &Uri, headers: &mut HeaderMap) -> Option<Span> {
        if self.place == Place::NOWHERE {
            return None;
        }
        let own = Place::of(headers).filter(|own| own.trace == self.place.trace);
        let name = method_name(method);
        let span = self.spans.as_ref().map(|spans| {
            let mut span = spans.child(SpanKind::Client, name.unwrap_or("HTTP"), own.unwrap_or(self.place));
            if span.is_recording() {
                let host = uri.host().unwrap_or_default();
                let port = allowlist::port(uri);
                span.set("http.request.method", name.unwrap_or("_OTHER"));
                span.set("server.address", host.to_owned());
                span.set("server.port", i64::from(port));
                let scheme = uri.scheme_str().unwrap_or_default();
                span.set("url.full", format!("{scheme}://{host}:{port}{}", uri.path()));
            }
            span
        });
        match (&span, own) {
            (Some(span), _) => span.place().write(headers),
            (None, Some(_)) => return span,
            (None, None) => self.place.write(headers),
        }
        if let Some(state) = &self.state
            && !headers.contains_key(trace::TRACESTATE)
        {
            headers.insert(trace::TRACESTATE, state.clone());
        }
        span
    }
}

/// The methods that the semantic conventions know; every other one is one value, since anybody may invent them.
pub fn method_name(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| method.as_str() == *known)
}

/// The exporter, whose spans are counted.
#[derive(Debug)]
struct Counted {
    exporter: SpanExporter,
    metrics: Arc<Metrics>,
}

impl opentelemetry_sdk::trace::SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let ended = self.exporter.export(batch).await;
        self.metrics.spans_exported(count, ended.is_ok());
        ended
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The way to the collector. The SDK's thread waits for what runs here on the host's runtime.
#[derive(Debug)]
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    runtime: Handle,
    complaints: Arc<RateLimit>,
}

impl Collector {
    fn new(settings: &Settings) -> anyhow::Result<Self> {
        let tls = tls::client(settings.ca_file.as_deref()).context("OTEL_EXPORTER_OTLP_CERTIFICATE")?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            timeout: settings.timeout,
            runtime: Handle::try_current()?,
            complaints: Arc::new(RateLimit::new(1)),
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, patience) = (self.client.clone(), self.timeout);
        let exchange = async move {
            let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        let ended = self.runtime.spawn(async move { timeout(patience, exchange).await }).await;
        let answer = ended.map_err(HttpError::from).and_then(|ended| ended?);
        let complaint = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = complaint
            && let Pass::Yes { dropped_before } = self.complaints.pass()
        {
            let left_out = (dropped_before > 0).then_some(dropped_before);
            tracing::warn!(error, left_out, "the collector takes no traces");
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::read(find).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_exported_unless_an_endpoint_says_so() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        assert_eq!(read(&[("OTEL_TRACES_SAMPLER", "always_on")]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(read(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(read(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        let settings = read(&[endpoint, ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250")]).unwrap().unwrap();
        assert_eq!((settings.endpoint.as_str(), settings.timeout), ("http://c:4318", Duration::from_millis(250)));
    }

    #[test]
    fn a_wrong_variable_is_named_with_what_to_write() {
        for (name, value, says) in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318", "write http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "write http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "write milliseconds"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "write gzip or none"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "write otlp or none"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "write one of always_on"),
            ("OTEL_TRACES_SAMPLER", "traceidratio", "OTEL_TRACES_SAMPLER_ARG"),
        ] {
            let refused = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), (name, value)]).unwrap_err();
            assert!(refused.contains(says), "{name}={value}: {refused}");
        }
    }
}
