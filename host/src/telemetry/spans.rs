//! Spans, made where traces are exported (`otlp`), and the trace context that goes from the client to the guest and on to
//! the servers that it calls.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Uri};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::metrics::Metrics;
use super::otlp;
use crate::http::trace_context::{self, TRACESTATE, TraceParent};
use crate::http::uri::port;

/// How long the last spans may take when the host ends.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// Makes spans, and has them exported.
#[derive(Debug)]
pub(crate) struct Spans {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    metrics: Arc<Metrics>,
}

impl Spans {
    /// Exports as the environment says, or not at all; see [`otlp::provider_from_environment`].
    ///
    /// # Errors
    /// The variable that is wrong, and what to write instead.
    pub(crate) fn from_environment(
        service: &str,
        version: &str,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        let provider = otlp::provider_from_environment(service, version, metrics.clone())?;
        Ok(provider.map(|provider| Arc::new(Self { tracer: provider.tracer("taffrail"), provider, metrics })))
    }

    /// The span of a request, a child of the client's span where it sent one.
    pub(crate) fn server(&self, name: &'static str, client: Option<TraceParent>, headers: &HeaderMap) -> Span {
        let state = || headers.get(TRACESTATE)?.to_str().ok()?.parse().ok();
        let parent = client.map(|parent| span_context(parent, true, state().unwrap_or_default()));
        self.start(SpanKind::Server, name, parent)
    }

    /// A span within another one.
    pub(crate) fn child(&self, kind: SpanKind, name: &'static str, parent: TraceParent) -> Span {
        self.start(kind, name, Some(span_context(parent, false, TraceState::NONE)))
    }

    fn start(&self, kind: SpanKind, name: &'static str, parent: Option<SpanContext>) -> Span {
        let around = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let builder = self.tracer.span_builder(name).with_kind(kind);
        Span { span: self.tracer.build_with_context(builder, &around), metrics: self.metrics.clone() }
    }

    /// Exports what has ended, for two seconds at the most. What ends later is lost.
    pub(crate) async fn finish(self: Arc<Self>) {
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST_EXPORT)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last traces were not exported");
        }
    }
}

fn span_context(parent: TraceParent, remote: bool, state: TraceState) -> SpanContext {
    let (trace_id, span_id) = (TraceId::from(parent.trace_id.0), SpanId::from(parent.parent_id));
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    SpanContext::new(trace_id, span_id, flags, remote, state)
}

/// A span that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Span {
    span: opentelemetry_sdk::trace::Span,
    metrics: Arc<Metrics>,
}

impl Span {
    /// Itself as the parent of what happens within it.
    pub(crate) fn trace_parent(&self) -> TraceParent {
        let context = self.span.span_context();
        TraceParent {
            trace_id: trace_context::TraceId(u128::from_be_bytes(context.trace_id().to_bytes())),
            parent_id: u64::from_be_bytes(context.span_id().to_bytes()),
            sampled: context.is_sampled(),
        }
    }

    /// Whether it is sampled: attributes of one that is not need not be made.
    pub(crate) fn is_recording(&self) -> bool {
        self.span.is_recording()
    }

    /// Sets an attribute.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(KeyValue::new(name, value));
    }

    /// It failed; `error` is `error.type` of the semantic conventions, a text of few values.
    pub(crate) fn fail(&mut self, error: impl Into<Value>) {
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

/// The trace of one guest: what it is told, and the parent of what it calls.
#[derive(Debug, Clone)]
pub(crate) struct GuestTrace {
    /// The parent, as the guest is told; none where it runs for several requests at the same time.
    pub(crate) parent: TraceParent,
    state: Option<HeaderValue>,
    spans: Option<Arc<Spans>>,
}

impl GuestTrace {
    /// A guest within a request, and the span of its run. Without spans it is told of the request's own parent.
    pub(crate) fn new(request: TraceParent, spans: Option<Arc<Spans>>) -> (Self, Option<Span>) {
        let run = spans.as_ref().map(|spans| spans.child(SpanKind::Internal, "guest", request));
        (Self { parent: run.as_ref().map_or(request, Span::trace_parent), state: None, spans }, run)
    }

    /// No trace: a guest that runs for several requests at the same time calls for none of them.
    pub(crate) fn none() -> Self {
        Self { parent: TraceParent::NONE, state: None, spans: None }
    }

    /// Propagates the trace to the guest, in the headers of its request. `given`: the client sent a valid `traceparent`, so
    /// that nothing needs to be changed where the host adds no span.
    pub(crate) fn propagate(&mut self, headers: &mut HeaderMap, given: bool) {
        match (&self.spans, given) {
            (None, true) => {}
            (Some(_), true) => self.parent.inject(headers),
            (_, false) => self.parent.inject_root(headers),
        }
        self.state = headers.get(TRACESTATE).cloned();
    }

    /// Propagates the trace to a server that the guest calls, in the headers of that request; a `traceparent` of the guest's
    /// own in the same trace stays the parent. Where spans are exported, the call is one, without its query.
    pub(crate) fn propagate_outbound(&self, method: &Method, uri: &Uri, headers: &mut HeaderMap) -> Option<Span> {
        if self.parent == TraceParent::NONE {
            return None;
        }
        let own = TraceParent::from_headers(headers).filter(|own| own.trace_id == self.parent.trace_id);
        let name = method_name(method);
        let span = self.spans.as_ref().map(|spans| {
            let mut span = spans.child(SpanKind::Client, name.unwrap_or("HTTP"), own.unwrap_or(self.parent));
            if span.is_recording() {
                let host = uri.host().unwrap_or_default();
                let port = port(uri);
                span.set("http.request.method", name.unwrap_or("_OTHER"));
                span.set("server.address", host.to_owned());
                span.set("server.port", i64::from(port));
                let scheme = uri.scheme_str().unwrap_or_default();
                span.set("url.full", format!("{scheme}://{host}:{port}{}", uri.path()));
            }
            span
        });
        match (&span, own) {
            (Some(span), _) => span.trace_parent().inject(headers),
            (None, Some(_)) => return span,
            (None, None) => self.parent.inject(headers),
        }
        if let Some(state) = &self.state
            && !headers.contains_key(TRACESTATE)
        {
            headers.insert(TRACESTATE, state.clone());
        }
        span
    }
}

/// The methods that the semantic conventions know; every other one is one value, since anybody may invent them.
pub(crate) fn method_name(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| method.as_str() == *known)
}
