//! What a guest may call: nothing yet. Every outbound request is refused with `wasi:http`'s own error.

use std::sync::Arc;

use hyper::header::HeaderName;
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

use crate::metrics::Metrics;

/// The outbound side of one request.
#[derive(Debug)]
pub struct Outbound {
    metrics: Arc<Metrics>,
}

impl Outbound {
    /// Counts what is refused.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

type Exchange = (hyper::Response<WasiBody>, Box<dyn Future<Output = Result<()>> + Send>);

impl WasiHttpHooks for Outbound {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name) // the default does the same behind an allocation for every header
    }

    // What a guest may write ahead of its client: two chunks of 64 KiB, not wasmtime's two of 1 MiB.
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        64 * 1024
    }

    fn send_request(
        &mut self,
        request: hyper::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Result<Exchange>> + Send> {
        self.metrics.outbound("refused");
        tracing::info!(host = request.uri().host(), "refused the component's outbound request: none is allowed");
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}
