//! A response as the guest hands it over, before anything of it is sent.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hyper::{Response, StatusCode};
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::WasiBody;

/// What a guest answers: a response, or the error that it reports in its place.
pub(crate) type Head = Result<GuestResponse, String>;

/// A response as the guest hands it over.
#[derive(Debug)]
pub(crate) struct GuestResponse {
    /// Head and body.
    pub(crate) response: Response<WasiBody>,
    /// Present for a guest of WASI 0.3.
    pub(crate) progress: Option<Arc<Progress>>,
}

/// What a guest of WASI 0.3 and its response know of each other.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The response was taken whole.
    pub(crate) taken: CancellationToken,
    /// The guest has ended, but for what of its response was not taken.
    pub(crate) ended: AtomicBool,
}

impl From<Response<WasiBody>> for GuestResponse {
    /// The response of a guest of WASI 0.2, which can end before its body is taken.
    fn from(response: Response<WasiBody>) -> Self {
        Self { response, progress: None }
    }
}

impl GuestResponse {
    /// Whether no body follows its head: that of a HEAD request, a 204 or a 304 (RFC 9112, 6.3).
    pub(crate) fn is_bodiless(&self, head_only: bool) -> bool {
        head_only || matches!(self.response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    /// The response of a guest of WASI 0.3, whose run is over when its body is taken.
    pub(crate) fn concurrent(response: Response<WasiBody>, progress: Arc<Progress>) -> Self {
        Self { response, progress: Some(progress) }
    }
}
