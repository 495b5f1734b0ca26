//! W3C trace context: taken over from the client, made when it is missing, handed on to the guest.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What else a tracing system wants passed on with its `traceparent`.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A place in a trace: what a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The trace; not zero but in [`Place::NOWHERE`].
    pub trace: TraceId,
    /// The span in it; the same.
    pub span: u64,
    /// Whether somebody has sampled the trace already.
    pub sampled: bool,
}

/// The id of a trace. Shown as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl Place {
    /// No place in any trace.
    pub const NOWHERE: Self = Self { trace: TraceId(0), span: 0, sampled: false };
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Place {
    /// Where the sender of these headers was: their one sane `traceparent`, if they have just one.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        match (given.next(), given.next()) {
            (Some(value), None) => parse(value.to_str().ok()?),
            _ => None,
        }
    }

    /// The beginning of a new trace, which nobody has sampled.
    pub fn random() -> Self {
        Self { trace: TraceId(fastrand::u128(1..)), span: fastrand::u64(1..), sampled: false }
    }

    /// Puts itself into the headers, in the place of what is there.
    pub fn write(self, headers: &mut HeaderMap) {
        let text = format!("00-{}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled));
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// Begins a new trace in headers that have no sane one. A `tracestate` without its parent is dropped (W3C Trace
    /// Context, 3.3 and 4.3).
    pub fn begin(self, headers: &mut HeaderMap) {
        headers.remove(TRACESTATE);
        self.write(headers);
    }
}

/// A sane `traceparent`: `version-trace-parent-flags` in lower-case hex, neither id all zero. A version above 00 may go
/// on after the flags; version ff is none.
fn parse(value: &str) -> Option<Place> {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = value.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let sane = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    let trace = u128::from_str_radix(trace, 16).ok().filter(|_| sane)?;
    let (span, flags) = (u64::from_str_radix(span, 16).ok()?, u8::from_str_radix(flags, 16).ok()?);
    (trace != 0 && span != 0).then_some(Place { trace: TraceId(trace), span, sampled: flags & 1 == 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        headers.insert(TRACESTATE, "vendor=1".parse().unwrap());
        headers
    }

    #[test]
    fn a_sane_parent_is_understood() {
        for (version, rest) in [("00", ""), ("cc", "-more")] {
            for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("03", true)] {
                let place =
                    Place::of(&headers(&[&format!("{version}-{TRACE}-00f067aa0ba902b7-{flags}{rest}")])).unwrap();
                assert_eq!((place.trace.to_string().as_str(), place.span), (TRACE, 0x00f0_67aa_0ba9_02b7));
                assert_eq!(place.sampled, sampled);
            }
        }
    }

    #[test]
    fn anything_else_is_none() {
        let zeros = "0".repeat(32);
        let sane = format!("00-{TRACE}-00f067aa0ba902b7-01");
        for values in [
            &[][..],
            &[&*sane, &*sane],
            &["", "x"],
            &[&*format!("00-{zeros}-00f067aa0ba902b7-01")],
            &[&*format!("00-{TRACE}-0000000000000000-01")],
            &[&*format!("ff-{TRACE}-00f067aa0ba902b7-01")],
            &[&*format!("00-{TRACE}-00f067aa0ba902b7-01-more")],
            &[&*sane.to_uppercase()],
            &[&*format!("00-{TRACE}-00f067aa0ba902b7")],
        ] {
            assert_eq!(Place::of(&headers(values)), None, "{values:?}");
        }
    }

    #[test]
    fn a_new_trace_is_sane_and_takes_the_place_of_what_was_there() {
        let place = Place::random();
        let mut headers = headers(&["nonsense", "twice"]);
        place.begin(&mut headers);
        assert_eq!(Place::of(&headers), Some(place));
        assert!(!place.sampled && !headers.contains_key(TRACESTATE));
    }
}
