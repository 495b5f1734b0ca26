//! Why an outbound call failed, for the guest, the metric and the log.

use std::error::Error as StdError;
use std::io;

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
    FirstByteTimeout,
    BetweenBytesTimeout,
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
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::BetweenBytesTimeout => "between_bytes_timeout",
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
            Self::FirstByteTimeout => "no answer within --outbound-first-byte-timeout",
            Self::BetweenBytesTimeout => "the answer stopped for --outbound-between-bytes-timeout",
            Self::Broken => "the answer broke off",
        }
    }

    /// What a failure of the client comes from, which it hides in a chain of causes.
    pub(crate) fn of(error: &hyper_util::client::legacy::Error) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(ours) = error.downcast_ref::<Refused>() {
                return ours.0;
            }
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return if matches!(tls, rustls::Error::InvalidCertificate(_)) { Self::Certificate } else { Self::Tls };
            }
            // An I/O error keeps what it was made of to itself.
            cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        if error.is_connect() { Self::ConnectFailed } else { Self::Broken }
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
            Refusal::FirstByteTimeout => Self::HttpResponseTimeout,
            Refusal::BetweenBytesTimeout => Self::ConnectionReadTimeout,
            Refusal::Broken => Self::HttpResponseIncomplete,
        }
    }
}

/// A refusal on its way through the client.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.advice())]
pub(crate) struct Refused(pub Refusal);
