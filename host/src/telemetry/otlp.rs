//! The export to an OpenTelemetry collector: OTLP over HTTP with protobuf, as the standard variables say. A span that has
//! ended goes into a bounded queue, which a thread of its own empties: a collector that is slow, down or wrong costs
//! spans, and never a request its time.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider, SpanData};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::metrics::Metrics;
use super::rate_limit::{Pass, RateLimit};
use crate::http::uri::without_userinfo;
use crate::tls;

/// The standard's default for one export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
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
            let endpoint = without_userinfo(&endpoint);
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

/// A provider of spans that exports as the environment says; `None` where nothing is to be exported. `service` is the
/// service's name where `OTEL_SERVICE_NAME` does not say; `version` is the component's short digest.
///
/// # Errors
/// The variable that is wrong, and what to write instead.
pub(crate) fn provider_from_environment(
    service: &str,
    version: &str,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Option<SdkTracerProvider>> {
    let Some(settings) = Settings::read(|name| env::var(name).ok())? else { return Ok(None) };
    let collector = Collector::new(&settings)?;
    let exporter = SpanExporter::builder().with_http().with_http_client(collector).build();
    let exporter = exporter.context("set up the export of traces")?;
    let exporter = CountingExporter { exporter, metrics };
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", version.to_owned()))
        .with_attribute(KeyValue::new("taffrail.version", env!("CARGO_PKG_VERSION")));
    let named = |variable: &str, text: &str| env::var(variable).is_ok_and(|value| value.contains(text));
    if !named("OTEL_SERVICE_NAME", "") && !named("OTEL_RESOURCE_ATTRIBUTES", "service.name=") {
        resource = resource.with_service_name(service.to_owned());
    }
    tracing::info!(endpoint = &*without_userinfo(&settings.endpoint), "exporting traces");
    let processor = BatchSpanProcessor::builder(exporter).build();
    Ok(Some(SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource.build()).build()))
}

/// An exporter that counts its spans.
#[derive(Debug)]
struct CountingExporter {
    exporter: SpanExporter,
    metrics: Arc<Metrics>,
}

impl opentelemetry_sdk::trace::SpanExporter for CountingExporter {
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
    warnings: Arc<RateLimit>,
}

impl Collector {
    fn new(settings: &Settings) -> anyhow::Result<Self> {
        let tls = tls::client(settings.ca_file.as_deref()).context("OTEL_EXPORTER_OTLP_CERTIFICATE")?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            timeout: settings.timeout,
            runtime: Handle::try_current()?,
            warnings: Arc::new(RateLimit::new(1)),
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, limit) = (self.client.clone(), self.timeout);
        let exchange = async move {
            let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        let ended = self.runtime.spawn(async move { timeout(limit, exchange).await }).await;
        let answer = ended.map_err(HttpError::from).and_then(|ended| ended?);
        let warning = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = warning
            && let Pass::Yes { dropped_before } = self.warnings.pass()
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
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "user:secret@collector:4318", "\"…@collector:4318\" is not a URL"),
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
