//! One outbound call: sent, timed, and counted when it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Method, Request, Response};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep, timeout};
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody};

use super::client::OutboundClient;
use super::connector::Answered;
use super::refusal::Refusal;
use crate::http::request_body::BodyReport;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::Span;

/// A call's share of the guest's own limit, and of that of all guests.
pub(crate) type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);
/// An answer, and how the sending of the request's body goes on.
pub(crate) type Exchange = (Response<WasiBody>, Box<dyn Future<Output = Result<()>> + Send>);

/// Sends a request and returns with the head of the answer. Its body holds the call's slots until it is over.
pub(crate) async fn send(
    client: Arc<OutboundClient>,
    request: Request<WasiBody>,
    options: RequestOptions,
    mut call: OutboundCall,
) -> Result<Exchange> {
    let limits = &client.limits;
    let uri = request.uri().clone();
    let shorter = |asked: Option<Duration>, limit: Duration| asked.map_or(limit, |asked| asked.min(limit));
    // The client may have to connect first, which has its own limit.
    let limit = shorter(options.connect_timeout, limits.connect_timeout)
        + shorter(options.first_byte_timeout, limits.first_byte_timeout);
    let answer = match timeout(limit, ask(&client, request)).await {
        Ok(answer) => answer.map_err(|error| Refusal::of(&error)),
        Err(_) => Err(Refusal::FirstByteTimeout),
    };
    match answer {
        Ok(response) => {
            Answered::note(&response);
            call.answered(response.status().as_u16());
            let between_bytes = shorter(options.between_bytes_timeout, limits.between_bytes_timeout);
            let response =
                response.map(|incoming| ServerBody { incoming, call, between_bytes, waiting: None }.boxed_unsync());
            Ok((response, Box::new(async { Ok(()) })))
        }
        Err(refusal) => {
            client.warn(refusal.reason(), &uri, refusal.advice());
            call.end(refusal.reason());
            Err(refusal.into())
        }
    }
}

/// Sends the request, once more where its connection was an old one that the server was just closing: nobody can know that
/// beforehand, and a GET or HEAD without a body may be sent twice (RFC 9110, 9.2.2).
async fn ask(
    client: &OutboundClient,
    request: Request<WasiBody>,
) -> std::result::Result<Response<Incoming>, hyper_util::client::legacy::Error> {
    let may_repeat = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream();
    if !may_repeat {
        return client.pool.request(request).await;
    }
    let (head, body) = request.into_parts();
    let again = Request::from_parts(head.clone(), Empty::new().map_err(|never| match never {}).boxed_unsync());
    match client.pool.request(Request::from_parts(head, body)).await {
        Err(error) if Refusal::of(&error) == Refusal::Broken && Answered::before(&error) => {
            client.pool.request(again).await
        }
        answer => answer,
    }
}

/// One call: counted when it ends.
pub(crate) struct OutboundCall {
    span: Option<Span>,
    metrics: Arc<Metrics>,
    report: BodyReport,
    ended: bool,
    _permits: Permits,
}

impl OutboundCall {
    /// A call that has been admitted.
    pub(crate) fn new(span: Option<Span>, metrics: Arc<Metrics>, report: BodyReport, permits: Permits) -> Self {
        Self { span, metrics, report, ended: false, _permits: permits }
    }

    fn answered(&mut self, status: u16) {
        if let Some(span) = &mut self.span {
            span.set("http.response.status_code", i64::from(status));
            if status >= 400 {
                span.fail(status.to_string()); // a client's span takes every 4xx for an error
            }
        }
    }

    fn end(&mut self, reason: &'static str) {
        if !std::mem::replace(&mut self.ended, true) {
            self.metrics.outbound(reason);
            if reason != "ok"
                && let Some(span) = &mut self.span
            {
                span.fail(reason);
            }
        }
    }
}

impl Drop for OutboundCall {
    fn drop(&mut self) {
        self.end("abandoned"); // the guest read no further, or was stopped
    }
}

/// The body of a server's answer.
struct ServerBody {
    incoming: Incoming,
    call: OutboundCall,
    between_bytes: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Body for ServerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = None;
                if self.incoming.is_end_stream() {
                    self.call.end("ok");
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let refusal = Refusal::of_body(&error);
                self.call.end(refusal.reason());
                Poll::Ready(Some(Err(refusal.into())))
            }
            Poll::Ready(None) => {
                self.call.end("ok");
                Poll::Ready(None)
            }
            Poll::Pending => {
                self.call.report.waits_outside();
                let limit = self.between_bytes;
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
                if waiting.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.call.end(Refusal::BetweenBytesTimeout.reason());
                Poll::Ready(Some(Err(Refusal::BetweenBytesTimeout.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
