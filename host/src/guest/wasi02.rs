//! One call of a WASI 0.2 component: `wasi:http/incoming-handler`.

use hyper::Request;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use super::response::{GuestResponse, Head};
use super::store::State;
use crate::http::request_body::RequestBody;
use crate::telemetry::logs::{DETAIL_MAX, text_within};

/// Calls the handler. The response goes out through `head` as soon as the guest sets it, usually before this ends.
/// Dropping the future, and then the store, stops the guest wherever it is.
///
/// # Errors
/// What wasmtime reports of a guest that failed.
pub(crate) async fn run(
    proxy: &Proxy,
    store: &mut Store<State>,
    request: Request<RequestBody>,
    head: oneshot::Sender<Head>,
) -> wasmtime::Result<()> {
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(scheme, request)?;
    let outparam = http.new_response_outparam_from_callback(move |response| {
        let _ = head
            .send(response.map(GuestResponse::from).map_err(|code| text_within(format_args!("{code:?}"), DETAIL_MAX)));
    })?;
    proxy.wasi_http_incoming_handler().call_handle(store, request, outparam).await
}
