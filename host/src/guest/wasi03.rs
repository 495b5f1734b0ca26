//! One call of a WASI 0.3 component: `wasi:http/handler`.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hyper::Request;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::Service;

use super::response::{GuestResponse, Head, Progress};
use super::store::State;
use crate::http::request_body::RequestBody;
use crate::telemetry::logs::{DETAIL_MAX, text_within};

/// Calls the handler. The response goes out through `head` as soon as the guest returns it. This ends when the guest's
/// tasks have ended and its body was taken: the body flows only while this is polled, and the deadline that is around this
/// is the body's too. Dropping the future, and then the store, stops the guest wherever it is.
///
/// # Errors
/// What wasmtime reports of a guest that failed.
pub(crate) async fn run(
    service: &Service,
    store: &mut Store<State>,
    request: Request<RequestBody>,
    head: oneshot::Sender<Head>,
) -> wasmtime::Result<()> {
    let ran = store.run_concurrent(async |accessor| {
        let progress = call(service, accessor, request, head).await?;
        poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
        progress.ended.store(true, Relaxed);
        progress.taken.cancelled().await;
        Ok(())
    });
    ran.await?
}

/// Calls the handler within a store that runs. Ends when the response is out, and says how that goes on.
///
/// # Errors
/// What wasmtime reports of a guest that failed.
pub(crate) async fn call(
    service: &Service,
    accessor: &Accessor<State>,
    request: Request<RequestBody>,
    head: oneshot::Sender<Head>,
) -> wasmtime::Result<Arc<Progress>> {
    // How the request's body fared is known to the one who reads it; there is nothing to add.
    let request = accessor.with(|mut store| p3::Request::from_http(store.data_mut().http().hooks, request).0);
    let progress = Arc::<Progress>::default();
    match service.handle(accessor, request).await? {
        Ok(response) => {
            // What the guest is told of its response: that the host has taken all of it.
            let sent = progress.taken.clone().cancelled_owned();
            let response = accessor.with(|store| {
                response.into_http(store, async move {
                    sent.await;
                    Ok(())
                })
            })?;
            let _ = head.send(Ok(GuestResponse::concurrent(response, progress.clone())));
        }
        Err(code) => {
            progress.taken.cancel();
            let _ = head.send(Err(text_within(format_args!("{code:?}"), DETAIL_MAX)));
        }
    }
    Ok(progress)
}
