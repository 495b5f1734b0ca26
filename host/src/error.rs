//! Everything that can go wrong with one request, one row each: whose fault it is, the status, the reason and the title that
//! the client sees.
//!
//! What the client reads ([`Error::title`]) and what the log gets ([`Error::detail`]) are two things: nothing of the
//! guest's text, no path and no backtrace leaves the host.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

/// The header of every failure that the host answers; its value is [`Error::reason`].
pub(crate) const ERROR_HEADER: HeaderName = HeaderName::from_static("taffrail-error");

/// The party at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client's: its request, or how it reads the answer.
    Client,
    /// The component's.
    Guest,
    /// This host's, or its machine's.
    Host,
}

impl Fault {
    /// As reasons begin: `client`, `guest` or `host`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Guest => "guest",
            Self::Host => "host",
        }
    }

    /// The fault that a reason stands for; `None` for `ok`.
    pub(crate) fn of(reason: &str) -> Option<Self> {
        FAILURES.iter().find(|failure| failure.reason == reason).map(|failure| failure.fault)
    }
}

/// What is fixed for a kind of failure.
#[derive(Debug)]
struct Failure {
    fault: Fault,
    status: StatusCode,
    reason: &'static str,
    title: &'static str,
}

/// The enum [`Error`], and the row of each of its variants.
macro_rules! failures {
    ($($(#[$meta:meta])* $variant:ident $(($payload:ty))? => $fault:ident, $status:ident, $reason:literal, $title:literal;)+) => {
        /// Why a request failed. A closed list: each variant has one row, and the reason's first word is the fault's.
        #[derive(Debug, thiserror::Error)]
        pub(crate) enum Error {
            $($(#[$meta])* $variant $(($payload))?,)+
        }

        const FAILURES: &[Failure] = &[$(Failure {
            fault: Fault::$fault,
            status: StatusCode::$status,
            reason: $reason,
            title: $title,
        }),+];

        impl Error {
            fn failure(&self) -> &'static Failure {
                match self {
                    $(Self::$variant { .. } => &Failure {
                        fault: Fault::$fault,
                        status: StatusCode::$status,
                        reason: $reason,
                        title: $title,
                    },)+
                }
            }

            /// One of every kind, with a payload that no client may see.
            #[cfg(test)]
            fn all() -> Vec<Self> {
                vec![$(Self::$variant $((<$payload as tests::Payload>::secret()))?),+]
            }
        }
    };
}

failures! {
    /// The request is not HTTP that the host can pass on. The text says what is wrong with it.
    #[error("bad request: {0}")]
    ClientBadRequest(&'static str) => Client, BAD_REQUEST, "client_bad_request", "The request cannot be passed on.";
    /// The client asked for a tunnel (`CONNECT`).
    #[error("CONNECT is not for this server")]
    ClientMethodNotAllowed => Client, METHOD_NOT_ALLOWED, "client_method_not_allowed", "CONNECT is not for this server.";
    /// The request line and header have too many bytes or fields.
    #[error("the request header is larger than the limit")]
    ClientHeaderTooLarge => Client, REQUEST_HEADER_FIELDS_TOO_LARGE, "client_header_too_large", "The request header is larger than this server takes.";
    /// The request body is larger than the limit, in bytes.
    #[error("the request body has more than {0} bytes")]
    ClientBodyTooLarge(u64) => Client, PAYLOAD_TOO_LARGE, "client_body_too_large", "The request body is larger than this server takes.";
    /// The next piece of the request body did not come in time.
    #[error("the request body stalled")]
    ClientBodyTimeout => Client, REQUEST_TIMEOUT, "client_body_timeout", "The request body came too slowly.";
    /// The request body broke off, or was no HTTP.
    #[error("request body: {0}")]
    ClientBodyBroken(String) => Client, BAD_REQUEST, "client_body_broken", "The request body is incomplete or malformed.";
    /// The request took longer than its deadline, and waited for its body at the end.
    #[error("the deadline is over, and the request body is not")]
    ClientDeadline => Client, GATEWAY_TIMEOUT, "client_deadline", "The request body came too slowly.";
    /// The client read nothing of its response for too long.
    #[error("the client reads nothing")]
    ClientStalled => Client, REQUEST_TIMEOUT, "client_stalled", "The client read its response too slowly.";
    /// The client left before its answer was complete.
    #[error("the client left")]
    ClientGone => Client, BAD_REQUEST, "client_gone", "The client left before the answer was complete.";
    /// The whole request took longer than its deadline.
    #[error("the deadline is over")]
    GuestDeadline => Guest, GATEWAY_TIMEOUT, "guest_deadline", "The application took too long.";
    /// The guest trapped: a panic, an invalid memory access.
    #[error("the guest trapped: {0}")]
    GuestTrapped(String) => Guest, INTERNAL_SERVER_ERROR, "guest_trapped", "The application failed.";
    /// The guest ran out of stack.
    #[error("the guest overran its stack: {0}")]
    GuestStackOverflow(String) => Guest, INTERNAL_SERVER_ERROR, "guest_stack_overflow", "The application failed.";
    /// The guest wanted more memory than one guest may have, and failed for want of it.
    #[error("the guest is out of memory: {0}")]
    GuestOutOfMemory(String) => Guest, INTERNAL_SERVER_ERROR, "guest_out_of_memory", "The application ran out of memory.";
    /// The guest wanted a larger table than one may be, and failed for want of it.
    #[error("the guest's table is too large: {0}")]
    GuestTableTooLarge(String) => Guest, INTERNAL_SERVER_ERROR, "guest_table_too_large", "The application failed.";
    /// The guest holds too many handles.
    #[error("the guest holds too many handles: {0}")]
    GuestTooManyHandles(String) => Guest, INTERNAL_SERVER_ERROR, "guest_too_many_handles", "The application failed.";
    /// The guest handed the host too much in one call.
    #[error("the guest's call carries too much: {0}")]
    GuestCallTooLarge(String) => Guest, INTERNAL_SERVER_ERROR, "guest_call_too_large", "The application failed.";
    /// The guest called `exit`.
    #[error("the guest called exit with status {0}")]
    GuestExited(i32) => Guest, INTERNAL_SERVER_ERROR, "guest_exited", "The application ended itself.";
    /// The guest ended without setting a response.
    #[error("the guest set no response")]
    GuestNoResponse => Guest, BAD_GATEWAY, "guest_no_response", "The application gave no response.";
    /// The guest answered with an error code of `wasi:http`.
    #[error("the guest answered with an error: {0}")]
    GuestErrorCode(String) => Guest, BAD_GATEWAY, "guest_error", "The application answered with an error.";
    /// The guest's response cannot be sent. The text says why.
    #[error("the guest's response cannot be sent: {0}")]
    GuestBadResponse(&'static str) => Guest, BAD_GATEWAY, "guest_bad_response", "The application gave a response that cannot be sent.";
    /// The header of the guest's response is too large.
    #[error("the header of the guest's response is larger than the limit")]
    GuestHeaderTooLarge => Guest, BAD_GATEWAY, "guest_header_too_large", "The application gave a response that cannot be sent.";
    /// The guest did not finish its response body.
    #[error("the guest broke off its response body: {0}")]
    GuestBodyBroken(String) => Guest, BAD_GATEWAY, "guest_body_broken", "The application broke off its response.";
    /// As many requests as the host takes at once are in flight.
    #[error("overloaded: {0} requests are in flight")]
    HostOverloaded(u32) => Host, SERVICE_UNAVAILABLE, "host_overloaded", "Too many requests are in flight. Try again later.";
    /// All guests together have as much memory as the host may give.
    #[error("no memory is left for guests: {0}")]
    HostOutOfMemory(String) => Host, SERVICE_UNAVAILABLE, "host_out_of_memory", "The server has no memory left. Try again later.";
    /// The host itself failed.
    #[error("internal: {0}")]
    HostInternal(String) => Host, INTERNAL_SERVER_ERROR, "host_internal", "The server failed.";
}

impl Error {
    /// The party at fault.
    pub(crate) fn fault(&self) -> Fault {
        self.failure().fault
    }

    /// The status of the answer. For a failure after the response's head the client sees a cut instead.
    pub(crate) fn status(&self) -> StatusCode {
        self.failure().status
    }

    /// The machine-readable name: in the header `taffrail-error`, in the body, in metrics and in the log.
    pub(crate) fn reason(&self) -> &'static str {
        self.failure().reason
    }

    /// What the client reads, in one sentence.
    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::ClientBadRequest(what) => what,
            _ => self.failure().title,
        }
    }

    /// What the log gets: the cause, with the guest's Wasm backtrace where there is one.
    pub(crate) fn detail(&self) -> String {
        self.to_string()
    }

    /// The answer: RFC 9457 `application/problem+json`.
    pub(crate) fn response(&self, request_id: &str) -> Response<Full<Bytes>> {
        let status = self.status();
        let problem = serde_json::json!({
            "type": format!("urn:taffrail:error:{}", self.reason()),
            "title": self.title(),
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

    /// What a variant carries.
    pub(super) trait Payload {
        fn secret() -> Self;
    }

    impl Payload for String {
        fn secret() -> Self {
            "secret.rs".to_owned()
        }
    }

    impl Payload for &'static str {
        fn secret() -> Self {
            "what"
        }
    }

    impl Payload for u64 {
        fn secret() -> Self {
            1
        }
    }

    impl Payload for u32 {
        fn secret() -> Self {
            1
        }
    }

    impl Payload for i32 {
        fn secret() -> Self {
            1
        }
    }

    #[tokio::test]
    async fn every_failure_says_whose_fault_it_is_and_nothing_else() {
        use http_body_util::BodyExt;
        let mut reasons = std::collections::BTreeSet::new();
        for error in Error::all() {
            let reason = error.reason();
            assert!(reason.starts_with(&format!("{}_", error.fault().name())), "{reason}");
            assert_eq!(Fault::of(reason), Some(error.fault()));
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
            assert_eq!(problem["title"], error.title());
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
        let listed: Vec<(&str, String)> = Error::all().iter().map(|error| (error.reason(), status(error))).collect();
        let listed: Vec<(&str, &str)> = listed.iter().map(|(reason, status)| (*reason, status.as_str())).collect();
        assert_eq!(documented, listed, "README and Error differ, or have another order");
    }
}
