//! Traces, as a collector gets them: one trace from the client through the host to the guest, and never a request that
//! waits for the collector.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rustix::process::Signal;

use crate::support::*;
use crate::upstream::Upstream;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, name: &str) -> String {
    let value = span.attributes.iter().find(|attribute| attribute.key == name).and_then(|found| found.value.clone());
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn took(_: &Request<Bytes>) -> Response<Full<Bytes>> {
    Response::default()
}

/// What a collector has got when the host has ended.
async fn exported(collector: &mut Upstream, mut host: Process, spans: usize) -> (Vec<Span>, ExportTraceServiceRequest) {
    host.signal(Signal::TERM);
    let (mut found, mut last) = (Vec::new(), ExportTraceServiceRequest::default());
    while found.len() < spans {
        let request = collector.next().await;
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
        last = ExportTraceServiceRequest::decode(request.into_body()).expect("protobuf");
        found.extend(last.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| s.spans.clone()));
    }
    assert_eq!(host.wait().code(), Some(0));
    assert_eq!(found.len(), spans, "{found:#?}");
    assert!(collector.is_quiet(), "nothing more was exported before the host ended");
    (found, last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_host_and_guest_are_one_trace() {
    let mut collector = Upstream::start(took).await;
    let endpoint = format!("http://{}", collector.addr);
    let host = TestHost::serving("echo").spawn_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let parent = format!("00-{TRACE}-{CLIENT}-01");
    let sent = [("traceparent", parent.as_str()), ("tracestate", "vendor=1"), ("x-auth-token", TOKEN)];
    let answer = ask(Protocol::Http1, host.addr(), "GET", "/path?secret=query", &sent).await;
    let told = answer.header("seen-traceparent").to_owned();
    let port = host.addr().port().to_string();
    let (spans, export) = exported(&mut collector, host, 2).await;
    let server = spans.iter().find(|span| span.kind == 2).expect("a server span");
    let guest = spans.iter().find(|span| span.kind == 1).expect("an internal span");
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    assert_eq!(hex(&server.parent_span_id), CLIENT);
    assert_eq!((server.name.as_str(), server.trace_state.as_str()), ("GET", "vendor=1"));
    assert_eq!((guest.name.as_str(), &guest.parent_span_id), ("guest", &server.span_id));
    assert_eq!(told, format!("00-{TRACE}-{}-01", hex(&guest.span_id)), "the guest is told its own span");
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.path", "/path"),
        ("url.scheme", "http"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("client.address", "127.0.0.1"),
        ("network.peer.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("taffrail.reason", "ok"),
        ("taffrail.request_id", answer.header("x-request-id")),
    ] {
        assert_eq!(attribute(server, name), value, "{name}: {server:#?}");
    }
    let resource = export.resource_spans[0].resource.clone().expect("a resource");
    assert!(resource.attributes.iter().any(|attribute| attribute.key == "service.name"), "{resource:#?}");
    let everything = format!("{export:?}");
    assert!(!everything.contains(TOKEN) && !everything.contains("secret=query"), "{everything}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_an_error_of_both_spans_and_its_reason_is_the_type() {
    let mut collector = Upstream::start(took).await;
    let endpoint = format!("http://{}/v1/traces", collector.addr);
    let host = TestHost::serving("fail").spawn_with(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_SERVICE_NAME", "named"),
    ]);
    ask(Protocol::Http2, host.addr(), "BREW", "/trap", &[]).await;
    let (spans, export) = exported(&mut collector, host, 2).await;
    for span in &spans {
        assert_eq!(attribute(span, "error.type"), "guest_trapped");
        assert_eq!(span.status.as_ref().map(|status| status.code), Some(2));
    }
    let server = spans.iter().find(|span| span.kind == 2).expect("a server span");
    assert_eq!((server.name.as_str(), attribute(server, "http.request.method").as_str()), ("HTTP", "_OTHER"));
    assert_eq!(attribute(server, "network.protocol.version"), "2");
    assert!(format!("{export:?}").contains("\"named\""), "{export:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_samplers_of_the_standard_decide() {
    for (sampler, ratio, client, expected) in [
        ("always_off", "", "01", 0),
        ("parentbased_always_on", "", "00", 0),
        ("always_on", "", "00", 2),
        ("parentbased_traceidratio", "0", "01", 2),
    ] {
        let mut collector = Upstream::start(took).await;
        let endpoint = format!("http://{}", collector.addr);
        let host = TestHost::serving("echo").spawn_with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_TRACES_SAMPLER", sampler),
            ("OTEL_TRACES_SAMPLER_ARG", ratio),
        ]);
        let parent = format!("00-{TRACE}-{CLIENT}-{client}");
        let answer = ask(Protocol::Http1, host.addr(), "GET", "/", &[("traceparent", &parent)]).await;
        let told = answer.header("seen-traceparent").to_owned();
        assert!(told.starts_with(&format!("00-{TRACE}-")), "{sampler}: {told}");
        assert_eq!(told.ends_with("-01"), expected > 0, "{sampler}: {told}");
        exported(&mut collector, host, expected).await;
    }
}

/// A collector that refuses, one that hangs, and none at all: the requests are answered, and the host ends by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_in_trouble_costs_spans_and_no_request() {
    let refusing = Upstream::start(|_| {
        let mut response = Response::default();
        *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
        response
    })
    .await;
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    for collector in [refusing.addr, hanging.local_addr().expect("an address"), gone] {
        let endpoint = format!("http://{collector}");
        let mut host = TestHost::serving("hello").with("--access-log", "off").spawn_with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8"),
        ]);
        let mut client = Client::connect(Protocol::Http1, host.addr()).await;
        for _ in 0..200 {
            let answer = client.send(request("GET", host.addr(), "/ping", &[])).await.expect("an answer");
            assert_eq!(answer.status, 200);
        }
        let ended = || get(host.admin(), "/metrics");
        let all = async || ended().await.text().contains("taffrail_spans_ended_total 400\n");
        eventually("every span has ended", all).await;
        host.signal(Signal::TERM);
        assert_eq!(host.wait().code(), Some(0), "{collector}");
        assert!(host.whole_log().contains("traces"), "{collector}: the log says so");
    }
}

#[test]
fn a_wrong_variable_is_refused_at_start() {
    let mut command = TestHost::serving("hello").command();
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317").env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let mut process = Process::spawn(command);
    assert_eq!(process.wait().code(), Some(2));
    let log = process.whole_log();
    assert!(log.contains("OTEL_EXPORTER_OTLP_PROTOCOL: \"grpc\" is not offered; write http/protobuf"), "{log}");
}
