//! W3C trace context: taken over from the client, made where it is missing, propagated to the guest.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What else a tracing system wants passed on with its `traceparent`.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What a `traceparent` says: the trace, and the span within it that is the parent of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// The trace; zero in [`TraceParent::NONE`] alone.
    pub(crate) trace_id: TraceId,
    /// The parent span; zero in [`TraceParent::NONE`] alone.
    pub(crate) parent_id: u64,
    /// The `sampled` flag: somebody records this trace already.
    pub(crate) sampled: bool,
}

/// The id of a trace. Shown as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(pub u128);

impl TraceParent {
    /// In no trace.
    pub(crate) const NONE: Self = Self { trace_id: TraceId(0), parent_id: 0, sampled: false };
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl TraceParent {
    /// The one valid `traceparent` of these headers, if they have just one.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        match (given.next(), given.next()) {
            (Some(value), None) => parse(value.to_str().ok()?),
            _ => None,
        }
    }

    /// The root of a new trace, not sampled. The ids are random (W3C Trace Context, 3.2.2.3), from a generator that is fast
    /// and no secret.
    pub(crate) fn random() -> Self {
        Self { trace_id: TraceId(fastrand::u128(1..)), parent_id: fastrand::u64(1..), sampled: false }
    }

    /// Sets `traceparent`, in the place of any that is there.
    pub(crate) fn inject(self, headers: &mut HeaderMap) {
        let text = format!("00-{}-{:016x}-{:02x}", self.trace_id, self.parent_id, u8::from(self.sampled));
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// Starts a new trace in headers that have no valid one: a `tracestate` without its parent is dropped (W3C Trace
    /// Context, 3.3 and 4.3).
    pub(crate) fn inject_root(self, headers: &mut HeaderMap) {
        headers.remove(TRACESTATE);
        self.inject(headers);
    }
}

/// A valid `traceparent`: `version-trace_id-parent_id-flags` in lower-case hex, neither id all zero. A version above 00 may
/// go on after the flags; version ff is invalid.
fn parse(value: &str) -> Option<TraceParent> {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = value.splitn(5, '-');
    let (version, trace_id, parent_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let valid = hex(version, 2)
        && version != "ff"
        && hex(trace_id, 32)
        && hex(parent_id, 16)
        && hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|_| valid)?;
    let (parent_id, flags) = (u64::from_str_radix(parent_id, 16).ok()?, u8::from_str_radix(flags, 16).ok()?);
    let sampled = flags & 1 == 1;
    (trace_id != 0 && parent_id != 0).then_some(TraceParent { trace_id: TraceId(trace_id), parent_id, sampled })
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
    fn a_valid_parent_is_taken_over() {
        for (version, rest) in [("00", ""), ("cc", "-more")] {
            for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("03", true)] {
                let value = format!("{version}-{TRACE}-00f067aa0ba902b7-{flags}{rest}");
                let parent = TraceParent::from_headers(&headers(&[&value])).unwrap();
                assert_eq!((parent.trace_id.to_string().as_str(), parent.parent_id), (TRACE, 0x00f0_67aa_0ba9_02b7));
                assert_eq!(parent.sampled, sampled);
            }
        }
    }

    #[test]
    fn anything_else_is_none() {
        let zeros = "0".repeat(32);
        let valid = format!("00-{TRACE}-00f067aa0ba902b7-01");
        for values in [
            &[][..],
            &[&*valid, &*valid],
            &["", "x"],
            &[&*format!("00-{zeros}-00f067aa0ba902b7-01")],
            &[&*format!("00-{TRACE}-0000000000000000-01")],
            &[&*format!("ff-{TRACE}-00f067aa0ba902b7-01")],
            &[&*format!("00-{TRACE}-00f067aa0ba902b7-01-more")],
            &[&*valid.to_uppercase()],
            &[&*format!("00-{TRACE}-00f067aa0ba902b7")],
        ] {
            assert_eq!(TraceParent::from_headers(&headers(values)), None, "{values:?}");
        }
    }

    #[test]
    fn a_new_trace_is_valid_and_replaces_what_was_there() {
        let root = TraceParent::random();
        let mut headers = headers(&["nonsense", "twice"]);
        root.inject_root(&mut headers);
        assert_eq!(TraceParent::from_headers(&headers), Some(root));
        assert!(!root.sampled && !headers.contains_key(TRACESTATE));
    }
}
