//! Everything that can go wrong with one request, and the one place that decides what the client sees of it.
//!
//! What the client reads ([`Error::public`]) and what the log gets ([`Error::detail`]) are two things: nothing of the
//! guest's text, no path and no backtrace leaves the host.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// The header of every failure that the host answers; its value is [`Error::reason`].
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("taffrail-error");

/// Why a request failed. A closed list: each has one status and one reason, and the reason's first word says whose
/// fault it is: `client_`, `guest_` or `host_`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is not HTTP that the host can pass on. The text says what is wrong with it.
    #[error("bad request: {0}")]
    ClientBadRequest(&'static str),
    /// The client left before its answer was complete.
    #[error("the client left")]
    ClientGone,
    /// The request body is larger than the limit, in bytes.
    #[error("the request body has more than {0} bytes")]
    ClientBodyTooLarge(u64),
    /// The client's request body broke off, or was no HTTP.
    #[error("request body: {0}")]
    ClientBodyBroken(String),

    /// The guest trapped: a panic, an invalid memory access, an exhausted stack.
    #[error("the guest trapped: {0}")]
    GuestTrapped(String),
    /// The guest ended without setting a response.
    #[error("the guest set no response")]
    GuestNoResponse,
    /// The guest answered with an error code of `wasi:http`.
    #[error("the guest answered with an error: {0}")]
    GuestError(String),
    /// The guest called `exit`.
    #[error("the guest called exit with status {0}")]
    GuestExited(i32),
    /// The guest did not finish its response body.
    #[error("the guest broke off its response body: {0}")]
    GuestBodyBroken(String),

    /// As many requests as the host takes at once are in flight.
    #[error("overloaded: {0} requests are in flight")]
    HostOverloaded(u32),
    /// The host itself failed.
    #[error("internal: {0}")]
    HostInternal(String),
}

impl Error {
    /// The status of the answer. For a failure after the response's head the client sees a cut instead.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ClientBadRequest(_) | Self::ClientBodyBroken(_) | Self::ClientGone => StatusCode::BAD_REQUEST,
            Self::ClientBodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::GuestTrapped(_) | Self::GuestExited(_) | Self::HostInternal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::GuestNoResponse | Self::GuestError(_) | Self::GuestBodyBroken(_) => StatusCode::BAD_GATEWAY,
            Self::HostOverloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The machine-readable name: in the header `taffrail-error`, in the body and in the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ClientBadRequest(_) => "client_bad_request",
            Self::ClientGone => "client_gone",
            Self::ClientBodyTooLarge(_) => "client_body_too_large",
            Self::ClientBodyBroken(_) => "client_body_broken",
            Self::GuestTrapped(_) => "guest_trapped",
            Self::GuestNoResponse => "guest_no_response",
            Self::GuestError(_) => "guest_error",
            Self::GuestExited(_) => "guest_exited",
            Self::GuestBodyBroken(_) => "guest_body_broken",
            Self::HostOverloaded(_) => "host_overloaded",
            Self::HostInternal(_) => "host_internal",
        }
    }

    /// What the client reads, in one sentence.
    pub fn public(&self) -> &'static str {
        match self {
            Self::ClientBadRequest(what) => what,
            Self::ClientGone => "The client left before the answer was complete.",
            Self::ClientBodyTooLarge(_) => "The request body is larger than this server takes.",
            Self::ClientBodyBroken(_) => "The request body is incomplete or malformed.",
            Self::GuestTrapped(_) => "The application failed.",
            Self::GuestNoResponse => "The application gave no response.",
            Self::GuestError(_) => "The application answered with an error.",
            Self::GuestExited(_) => "The application ended itself.",
            Self::GuestBodyBroken(_) => "The application broke off its response.",
            Self::HostOverloaded(_) => "Too many requests are in flight. Try again later.",
            Self::HostInternal(_) => "The server failed.",
        }
    }

    /// What the log gets: the cause, with the guest's Wasm backtrace where there is one.
    pub fn detail(&self) -> String {
        self.to_string()
    }

    /// The answer: RFC 9457 `application/problem+json`.
    pub fn response(&self, request_id: &str) -> Response<Full<Bytes>> {
        let status = self.status();
        let problem = serde_json::json!({
            "type": format!("urn:taffrail:error:{}", self.reason()),
            "title": self.public(),
            "status": status.as_u16(),
            "reason": self.reason(),
            "request_id": request_id,
        });
        let mut response = Response::new(Full::new(Bytes::from(problem.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.reason()));
        response
    }
}
