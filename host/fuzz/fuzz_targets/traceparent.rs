//! Trace context of any shape: afterwards there is one parent, the client's or that of a new trace.
#![no_main]

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use libfuzzer_sys::fuzz_target;
use trace_context::TraceParent;

#[allow(dead_code, reason = "the host uses more of it")]
#[path = "../../src/http/trace_context.rs"]
mod trace_context;

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("traceparent", value);
        }
    }
    let parent = TraceParent::from_headers(&headers).unwrap_or_else(TraceParent::random);
    parent.inject(&mut headers);
    assert_eq!(headers.get_all("traceparent").iter().count(), 1);
    assert_eq!(TraceParent::from_headers(&headers), Some(parent));
});
