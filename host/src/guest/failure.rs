//! How a guest failed, by what wasmtime reports.

use std::io;

use wasmtime::Trap;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::FieldMapError;

use super::limits::Limiter;
use super::os_error::refused_by_system;
use crate::error::Error;
use crate::http::request_body::RequestBodyError;
use crate::telemetry::logs::{DETAIL_MAX, text_within};

/// How much of a cause is searched, in bytes.
const CAUSE_MAX: usize = 1024;

impl From<RequestBodyError> for wasmtime_wasi_http::Error {
    fn from(_: RequestBodyError) -> Self {
        Self::HttpProtocolError
    }
}

/// The failure of a guest; what its limiter refused outweighs the trap that came of it.
pub(crate) fn failure(error: wasmtime::Error, limiter: &Limiter) -> Error {
    limiter.failure(|| text_within(format_args!("{error:?}"), DETAIL_MAX)).unwrap_or_else(|| reported(error))
}

fn reported(error: wasmtime::Error) -> Error {
    let detail = text_within(format_args!("{error:?}"), DETAIL_MAX);
    match refused_by_system(&error) {
        Some(refused) if refused.kind() == io::ErrorKind::OutOfMemory => return Error::HostOutOfMemory(detail),
        Some(_) => return Error::HostInternal(detail),
        None => {}
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Error::GuestExited(exit.0);
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Error::HostInternal(format!("{error:#}"));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => return Error::GuestStackOverflow(detail),
        Some(Trap::NoAsyncResult) => return Error::GuestNoResponse, // a task of WASI 0.3 that ended without a result
        _ => {}
    }
    if let Some(FieldMapError::TotalSizeTooBig | FieldMapError::TooManyFields) = error.downcast_ref() {
        return Error::GuestHeaderTooLarge;
    }
    // Too many handles of the component itself, and too large a call, have no public type.
    let full = matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full));
    if full || says(&error, &["store handle limit exceeded"]) {
        return Error::GuestTooManyHandles(detail);
    }
    if says(&error, &["too much data", "fuel", "requested len"]) {
        return Error::GuestCallTooLarge(detail);
    }
    Error::GuestTrapped(detail)
}

/// Whether one of the causes is said in such words. They begin with them; what they quote of the component may be long.
fn says(error: &wasmtime::Error, words: &[&str]) -> bool {
    error.chain().any(|cause| {
        let said = text_within(format_args!("{cause}"), CAUSE_MAX);
        words.iter().any(|words| said.contains(words))
    })
}
