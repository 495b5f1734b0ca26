//! W3C trace context: taken over from the client, made when it is missing, handed on to the guest.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use uuid::Uuid;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Makes sure that a request has one sane `traceparent`, and returns its trace id: 32 hex digits.
///
/// The client's own stays as it is, with its `tracestate`, because the host adds no span. Where there is none, or more
/// than one, or one that is not sane, a new trace begins that nobody has sampled; a `tracestate` without its parent is
/// dropped (W3C Trace Context, 3.3 and 4.3).
pub fn adopt(headers: &mut HeaderMap) -> String {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let trace_id = match (given.next(), given.next()) {
        (Some(value), None) => value.to_str().ok().and_then(trace_id).map(str::to_owned),
        _ => None,
    };
    trace_id.unwrap_or_else(|| {
        let (trace, span) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
        if let Ok(value) = HeaderValue::try_from(format!("00-{trace}-{}-00", &span[..16])) {
            headers.insert(TRACEPARENT, value);
        }
        headers.remove(TRACESTATE);
        trace
    })
}

/// The trace id of a sane `traceparent`: `version-trace-parent-flags` in lower-case hex, neither id all zero. A version
/// above 00 may go on after the flags; version ff is none.
fn trace_id(value: &str) -> Option<&str> {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = value.splitn(5, '-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let sane = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && hex(parent, 16)
        && hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    (sane && !zero(trace) && !zero(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn adopted(values: &[&str]) -> (String, HeaderMap) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        headers.insert(TRACESTATE, "vendor=1".parse().unwrap());
        (adopt(&mut headers), headers)
    }

    #[test]
    fn a_sane_parent_is_passed_on_as_it_is() {
        for value in [format!("00-{TRACE}-00f067aa0ba902b7-01"), format!("cc-{TRACE}-00f067aa0ba902b7-01-more")] {
            let (id, headers) = adopted(&[&value]);
            assert_eq!((id.as_str(), headers[TRACEPARENT].to_str().unwrap()), (TRACE, value.as_str()));
            assert_eq!(headers[TRACESTATE], "vendor=1");
        }
    }

    #[test]
    fn anything_else_begins_a_new_trace() {
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
            let (id, headers) = adopted(values);
            assert!(id != TRACE && id.len() == 32, "{values:?}");
            let parent = headers[TRACEPARENT].to_str().unwrap();
            assert_eq!(trace_id(parent), Some(id.as_str()), "{values:?}");
            assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
            assert!(parent.ends_with("-00") && !headers.contains_key(TRACESTATE), "{values:?}");
        }
    }
}
