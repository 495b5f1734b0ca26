//! One call of a WASI 0.2 component: `wasi:http/incoming-handler`.

use std::time::Instant;

use hyper::{Request, Response};
use tokio::sync::oneshot;
use wasmtime::component::ResourceTableError;
use wasmtime::{Store, Trap};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::store::State;
use crate::body::{RequestBody, RequestBodyError};
use crate::error::Error;
use crate::metrics::Metrics;

/// What a guest sets as its response.
pub type Head = Result<Response<HyperOutgoingBody>, ErrorCode>;

impl From<RequestBodyError> for wasmtime_wasi_http::Error {
    fn from(_: RequestBodyError) -> Self {
        Self::HttpProtocolError
    }
}

/// Instantiates the component and calls its handler. The response goes out through `head` as soon as the guest sets it,
/// usually before this ends. Dropping the future stops the guest wherever it is.
///
/// # Errors
/// How the guest failed, or why it could not be started.
pub async fn run(
    linked: &ProxyPre<State>,
    store: &mut Store<State>,
    request: Request<RequestBody>,
    head: oneshot::Sender<Head>,
    metrics: &Metrics,
) -> Result<(), Error> {
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(scheme, request).map_err(internal)?;
    let outparam = http.new_response_outparam(head).map_err(internal)?;
    let called = async {
        let started = Instant::now();
        let proxy = linked.instantiate_async(&mut *store).await?;
        metrics.instantiated(started.elapsed());
        proxy.wasi_http_incoming_handler().call_handle(&mut *store, request, outparam).await
    };
    let ended = called.await;
    ended.map_err(|error| {
        let refused = store.data().limiter().failure(|| format!("{error:?}"));
        refused.unwrap_or_else(|| failure(error))
    })
}

fn internal(error: wasmtime::Error) -> Error {
    Error::HostInternal(format!("{error:#}"))
}

/// How a guest failed, by what wasmtime reports.
fn failure(error: wasmtime::Error) -> Error {
    let detail = format!("{error:?}");
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Error::GuestExited(exit.0);
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return internal(error);
    }
    if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
        return Error::GuestStackOverflow(detail);
    }
    // Too many handles of the component itself, and too large a call, have no public type.
    let full = matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full));
    if full || detail.contains("component handle") && detail.contains("limit") {
        return Error::GuestTooManyHandles(detail);
    }
    if detail.contains("too much data") || detail.contains("fuel") {
        return Error::GuestCallTooLarge(detail);
    }
    Error::GuestTrapped(detail)
}
