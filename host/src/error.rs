//! Everything that can go wrong with one request, and the one place that decides what the client sees of it.
//!
//! What the client reads ([`Error::public`]) and what the log gets ([`Error::detail`]) are two things: nothing of the
//! guest's text, no path and no backtrace leaves the host.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
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
    /// The client asked for a tunnel (`CONNECT`).
    #[error("CONNECT is not for this server")]
    ClientMethodNotAllowed,
    /// The request line and header have too many bytes or fields.
    #[error("the request header is larger than the limit")]
    ClientHeaderTooLarge,
    /// The request body is larger than the limit, in bytes.
    #[error("the request body has more than {0} bytes")]
    ClientBodyTooLarge(u64),
    /// The next piece of the request body did not come in time.
    #[error("the request body stalled")]
    ClientBodyTimeout,
    /// The request body broke off, or was no HTTP.
    #[error("request body: {0}")]
    ClientBodyBroken(String),
    /// The request took longer than its deadline, and waited for its body at the end.
    #[error("the deadline is over, and the request body is not")]
    ClientDeadline,
    /// The client read nothing of its response for too long.
    #[error("the client reads nothing")]
    ClientStalled,
    /// The client left before its answer was complete.
    #[error("the client left")]
    ClientGone,

    /// The whole request took longer than its deadline.
    #[error("the deadline is over")]
    GuestDeadline,
    /// The guest trapped: a panic, an invalid memory access.
    #[error("the guest trapped: {0}")]
    GuestTrapped(String),
    /// The guest ran out of stack.
    #[error("the guest overran its stack: {0}")]
    GuestStackOverflow(String),
    /// The guest wanted more memory than one guest may have, and failed for want of it.
    #[error("the guest is out of memory: {0}")]
    GuestOutOfMemory(String),
    /// The guest wanted a larger table than one may be, and failed for want of it.
    #[error("the guest's table is too large: {0}")]
    GuestTableTooLarge(String),
    /// The guest holds too many handles.
    #[error("the guest holds too many handles: {0}")]
    GuestTooManyHandles(String),
    /// The guest handed the host too much in one call.
    #[error("the guest's call carries too much: {0}")]
    GuestCallTooLarge(String),
    /// The guest called `exit`.
    #[error("the guest called exit with status {0}")]
    GuestExited(i32),
    /// The guest ended without setting a response.
    #[error("the guest set no response")]
    GuestNoResponse,
    /// The guest answered with an error code of `wasi:http`.
    #[error("the guest answered with an error: {0}")]
    GuestError(String),
    /// The guest's response cannot be sent. The text says why.
    #[error("the guest's response cannot be sent: {0}")]
    GuestBadResponse(&'static str),
    /// The header of the guest's response is too large.
    #[error("the header of the guest's response is larger than the limit")]
    GuestHeaderTooLarge,
    /// The guest did not finish its response body.
    #[error("the guest broke off its response body: {0}")]
    GuestBodyBroken(String),

    /// As many requests as the host takes at once are in flight.
    #[error("overloaded: {0} requests are in flight")]
    HostOverloaded(u32),
    /// All guests together have as much memory as the host may give.
    #[error("no memory is left for guests: {0}")]
    HostOutOfMemory(String),
    /// The host itself failed.
    #[error("internal: {0}")]
    HostInternal(String),
}

impl Error {
    /// The status of the answer. For a failure after the response's head the client sees a cut instead.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ClientBadRequest(_) | Self::ClientBodyBroken(_) | Self::ClientGone => StatusCode::BAD_REQUEST,
            Self::ClientMethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ClientHeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ClientBodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientBodyTimeout | Self::ClientStalled => StatusCode::REQUEST_TIMEOUT,
            Self::ClientDeadline | Self::GuestDeadline => StatusCode::GATEWAY_TIMEOUT,
            Self::GuestTrapped(_)
            | Self::GuestStackOverflow(_)
            | Self::GuestOutOfMemory(_)
            | Self::GuestTableTooLarge(_)
            | Self::GuestTooManyHandles(_)
            | Self::GuestCallTooLarge(_)
            | Self::GuestExited(_)
            | Self::HostInternal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::GuestNoResponse
            | Self::GuestError(_)
            | Self::GuestBadResponse(_)
            | Self::GuestHeaderTooLarge
            | Self::GuestBodyBroken(_) => StatusCode::BAD_GATEWAY,
            Self::HostOverloaded(_) | Self::HostOutOfMemory(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The machine-readable name: in the header `taffrail-error`, in the body and in the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ClientBadRequest(_) => "client_bad_request",
            Self::ClientMethodNotAllowed => "client_method_not_allowed",
            Self::ClientHeaderTooLarge => "client_header_too_large",
            Self::ClientBodyTooLarge(_) => "client_body_too_large",
            Self::ClientBodyTimeout => "client_body_timeout",
            Self::ClientBodyBroken(_) => "client_body_broken",
            Self::ClientDeadline => "client_deadline",
            Self::ClientStalled => "client_stalled",
            Self::ClientGone => "client_gone",
            Self::GuestDeadline => "guest_deadline",
            Self::GuestTrapped(_) => "guest_trapped",
            Self::GuestStackOverflow(_) => "guest_stack_overflow",
            Self::GuestOutOfMemory(_) => "guest_out_of_memory",
            Self::GuestTableTooLarge(_) => "guest_table_too_large",
            Self::GuestTooManyHandles(_) => "guest_too_many_handles",
            Self::GuestCallTooLarge(_) => "guest_call_too_large",
            Self::GuestExited(_) => "guest_exited",
            Self::GuestNoResponse => "guest_no_response",
            Self::GuestError(_) => "guest_error",
            Self::GuestBadResponse(_) => "guest_bad_response",
            Self::GuestHeaderTooLarge => "guest_header_too_large",
            Self::GuestBodyBroken(_) => "guest_body_broken",
            Self::HostOverloaded(_) => "host_overloaded",
            Self::HostOutOfMemory(_) => "host_out_of_memory",
            Self::HostInternal(_) => "host_internal",
        }
    }

    /// What the client reads, in one sentence.
    pub fn public(&self) -> &'static str {
        match self {
            Self::ClientBadRequest(what) => what,
            Self::ClientMethodNotAllowed => "CONNECT is not for this server.",
            Self::ClientHeaderTooLarge => "The request header is larger than this server takes.",
            Self::ClientBodyTooLarge(_) => "The request body is larger than this server takes.",
            Self::ClientBodyTimeout => "The request body came too slowly.",
            Self::ClientBodyBroken(_) => "The request body is incomplete or malformed.",
            Self::ClientDeadline => "The request body came too slowly.",
            Self::ClientStalled => "The client read its response too slowly.",
            Self::ClientGone => "The client left before the answer was complete.",
            Self::GuestDeadline => "The application took too long.",
            Self::GuestTrapped(_) => "The application failed.",
            Self::GuestStackOverflow(_) => "The application failed.",
            Self::GuestOutOfMemory(_) => "The application ran out of memory.",
            Self::GuestTableTooLarge(_) => "The application failed.",
            Self::GuestTooManyHandles(_) => "The application failed.",
            Self::GuestCallTooLarge(_) => "The application failed.",
            Self::GuestExited(_) => "The application ended itself.",
            Self::GuestNoResponse => "The application gave no response.",
            Self::GuestError(_) => "The application answered with an error.",
            Self::GuestBadResponse(_) => "The application gave a response that cannot be sent.",
            Self::GuestHeaderTooLarge => "The application gave a response that cannot be sent.",
            Self::GuestBodyBroken(_) => "The application broke off its response.",
            Self::HostOverloaded(_) => "Too many requests are in flight. Try again later.",
            Self::HostOutOfMemory(_) => "The server has no memory left. Try again later.",
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
        match self {
            Self::HostOverloaded(_) | Self::HostOutOfMemory(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1")); // requests are short: a second is many of them
            }
            Self::ClientMethodNotAllowed => {
                let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
                headers.insert(ALLOW, HeaderValue::from_static(methods));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of every kind. The match makes a new variant a compile error here, until it is listed and so tested.
    fn all() -> Vec<Error> {
        let all = vec![
            Error::ClientBadRequest("what"),
            Error::ClientMethodNotAllowed,
            Error::ClientHeaderTooLarge,
            Error::ClientBodyTooLarge(1),
            Error::ClientBodyTimeout,
            Error::ClientBodyBroken("secret.rs".to_owned()),
            Error::ClientDeadline,
            Error::ClientStalled,
            Error::ClientGone,
            Error::GuestDeadline,
            Error::GuestTrapped("secret.rs".to_owned()),
            Error::GuestStackOverflow("secret.rs".to_owned()),
            Error::GuestOutOfMemory("secret.rs".to_owned()),
            Error::GuestTableTooLarge("secret.rs".to_owned()),
            Error::GuestTooManyHandles("secret.rs".to_owned()),
            Error::GuestCallTooLarge("secret.rs".to_owned()),
            Error::GuestExited(1),
            Error::GuestNoResponse,
            Error::GuestError("secret.rs".to_owned()),
            Error::GuestBadResponse("what"),
            Error::GuestHeaderTooLarge,
            Error::GuestBodyBroken("secret.rs".to_owned()),
            Error::HostOverloaded(1),
            Error::HostOutOfMemory("secret.rs".to_owned()),
            Error::HostInternal("secret.rs".to_owned()),
        ];
        for error in &all {
            match error {
                Error::ClientBadRequest(_)
                | Error::ClientMethodNotAllowed
                | Error::ClientHeaderTooLarge
                | Error::ClientBodyTooLarge(_)
                | Error::ClientBodyTimeout
                | Error::ClientBodyBroken(_)
                | Error::ClientDeadline
                | Error::ClientStalled
                | Error::ClientGone
                | Error::GuestDeadline
                | Error::GuestTrapped(_)
                | Error::GuestStackOverflow(_)
                | Error::GuestOutOfMemory(_)
                | Error::GuestTableTooLarge(_)
                | Error::GuestTooManyHandles(_)
                | Error::GuestCallTooLarge(_)
                | Error::GuestExited(_)
                | Error::GuestNoResponse
                | Error::GuestError(_)
                | Error::GuestBadResponse(_)
                | Error::GuestHeaderTooLarge
                | Error::GuestBodyBroken(_)
                | Error::HostOverloaded(_)
                | Error::HostOutOfMemory(_)
                | Error::HostInternal(_) => {}
            }
        }
        all
    }

    #[tokio::test]
    async fn every_failure_says_whose_fault_it_is_and_nothing_else() {
        use http_body_util::BodyExt;
        let mut reasons = std::collections::BTreeSet::new();
        for error in all() {
            let reason = error.reason();
            assert!(["client_", "guest_", "host_"].iter().any(|fault| reason.starts_with(fault)), "{reason}");
            assert!(reasons.insert(reason), "{reason} is there twice");
            let status = error.status();
            let response = error.response("the-id");
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[ERROR_HEADER], reason);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status == StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers().contains_key(ALLOW), status == StatusCode::METHOD_NOT_ALLOWED);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(problem["status"], status.as_u16());
            assert_eq!(problem["reason"], reason);
            assert_eq!(problem["request_id"], "the-id");
            assert_eq!(problem["type"], format!("urn:taffrail:error:{reason}"));
            assert_eq!(problem["title"], error.public());
            assert_eq!(problem.as_object().unwrap().len(), 5, "and nothing else: {problem}");
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
    }

    #[test]
    fn the_table_of_the_readme_is_this_list() {
        let readme = include_str!("../../docs/clients.md");
        let documented: Vec<(&str, &str)> = readme
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|row| row.split_once("` | "))
            .filter(|(reason, _)| ["client_", "guest_", "host_"].iter().any(|fault| reason.starts_with(fault)))
            .map(|(reason, row)| (reason, row.split(" | ").next().unwrap_or_default()))
            .collect();
        let never_sent = ["client_gone", "client_stalled"];
        let status = |error: &Error| match never_sent.contains(&error.reason()) {
            true => "–".to_owned(),
            false => error.status().as_str().to_owned(),
        };
        let listed: Vec<(&str, String)> = all().iter().map(|error| (error.reason(), status(error))).collect();
        let listed: Vec<(&str, &str)> = listed.iter().map(|(reason, status)| (*reason, status.as_str())).collect();
        assert_eq!(documented, listed, "README and Error differ, or have another order");
    }
}
