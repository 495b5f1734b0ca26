//! Why an outbound call failed, for the guest, the metric and the log.

use std::error::Error as StdError;
use std::io;
use std::io::ErrorKind::{InvalidData, InvalidInput};

use wasmtime_wasi_http::Error;

/// Why a call got no answer, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotAllowed,
    Prohibited,
    TooMany,
    NoSuchName,
    ConnectTimeout,
    ConnectFailed,
    Certificate,
    Tls,
    /// With the code of RFC 8446, 6.
    TlsAlert(u8),
    FirstByteTimeout,
    BetweenBytesTimeout,
    /// What answers is no HTTP, or none that can be understood for sure.
    Malformed,
    HeaderTooLarge,
    /// The component ended its own request's body with an error.
    RequestBody,
    Broken,
}

impl Refusal {
    /// The label of the metric.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NotAllowed => "refused",
            Self::Prohibited => "prohibited_address",
            Self::TooMany => "too_many",
            Self::NoSuchName => "dns_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::Certificate => "certificate",
            Self::Tls => "tls_failed",
            Self::TlsAlert(_) => "tls_alert",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::BetweenBytesTimeout => "between_bytes_timeout",
            Self::Malformed => "malformed",
            Self::HeaderTooLarge => "header_too_large",
            Self::RequestBody => "request_body",
            Self::Broken => "broken",
        }
    }

    /// What the log says, with the flag that would allow it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::NotAllowed => "refused; --allow-outbound with its scheme, host and port would allow it",
            Self::Prohibited => {
                "refused: the name leads to an address that is not public; --outbound-network with its network would allow it"
            }
            Self::TooMany => "refused: as many as --max-outbound or --max-outbound-per-request allow are under way",
            Self::NoSuchName => "the name cannot be resolved",
            Self::ConnectTimeout => "no connection within --outbound-connect-timeout",
            Self::ConnectFailed => "no connection",
            Self::Certificate => "the server's certificate is not trusted; --ca-file adds an authority",
            Self::Tls => "TLS failed",
            Self::TlsAlert(_) => "the server ended TLS with an alert",
            Self::FirstByteTimeout => "no answer within --outbound-first-byte-timeout",
            Self::BetweenBytesTimeout => "the answer stopped for --outbound-between-bytes-timeout",
            Self::Malformed => "the answer is not HTTP, or is malformed",
            Self::HeaderTooLarge => "the header of the answer is larger than 64 KiB, or has more than 100 fields",
            Self::RequestBody => "the component broke off the body of its request",
            Self::Broken => "the answer broke off",
        }
    }

    /// What a failure of the client comes from.
    pub(crate) fn of(error: &hyper_util::client::legacy::Error) -> Self {
        Self::of_cause(error).unwrap_or(if error.is_connect() { Self::ConnectFailed } else { Self::Broken })
    }

    /// What the failure of an answer's body comes from.
    pub(crate) fn of_body(error: &hyper::Error) -> Self {
        Self::of_cause(error).unwrap_or(Self::Broken)
    }

    /// The client hides what happened in a chain of causes.
    fn of_cause(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        let mut malformed = false; // so hyper says that a chunk is none, unless something within says more
        while let Some(error) = cause {
            if let Some(ours) = error.downcast_ref::<Refused>() {
                return Some(ours.0);
            }
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Some(match tls {
                    rustls::Error::InvalidCertificate(_) => Self::Certificate,
                    rustls::Error::AlertReceived(alert) => Self::TlsAlert(u8::from(*alert)),
                    _ => Self::Tls,
                });
            }
            if let Some(http) = error.downcast_ref::<hyper::Error>() {
                if http.is_parse_too_large() {
                    return Some(Self::HeaderTooLarge);
                }
                if http.is_parse() || http.is_parse_status() {
                    return Some(Self::Malformed);
                }
                if http.is_user() {
                    return Some(Self::RequestBody);
                }
            }
            let io = error.downcast_ref::<io::Error>();
            malformed |= io.is_some_and(|io| matches!(io.kind(), InvalidData | InvalidInput));
            // An I/O error keeps what it was made of to itself.
            cause = match io.and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        malformed.then_some(Self::Malformed)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotAllowed => Self::HttpRequestDenied,
            Refusal::Prohibited => Self::DestinationIpProhibited,
            Refusal::TooMany => Self::ConnectionLimitReached,
            Refusal::NoSuchName => Self::DnsError { rcode: None, info_code: None },
            Refusal::ConnectTimeout => Self::ConnectionTimeout,
            Refusal::ConnectFailed => Self::ConnectionRefused,
            Refusal::Certificate => Self::TlsCertificateError,
            Refusal::Tls => Self::TlsProtocolError,
            Refusal::TlsAlert(code) => Self::TlsAlertReceived {
                alert_id: Some(code),
                alert_message: Some(format!("{:?}", rustls::AlertDescription::from(code))),
            },
            Refusal::FirstByteTimeout => Self::HttpResponseTimeout,
            Refusal::BetweenBytesTimeout => Self::ConnectionReadTimeout,
            Refusal::Malformed => Self::HttpProtocolError,
            Refusal::HeaderTooLarge => Self::HttpResponseHeaderSectionSize(None),
            Refusal::RequestBody => Self::InternalError(Some(refusal.advice().to_owned())),
            Refusal::Broken => Self::HttpResponseIncomplete,
        }
    }
}

/// A refusal on its way through the client.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.advice())]
pub(crate) struct Refused(pub Refusal);
