//! Trace context of any shape: afterwards there is one parent, which says where the client was, or begins a trace.
#![no_main]

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the host uses more of it")]
#[path = "../../src/trace.rs"]
mod trace;

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("traceparent", value);
        }
    }
    let place = trace::Place::of(&headers).unwrap_or_else(trace::Place::random);
    place.write(&mut headers);
    assert_eq!(headers.get_all("traceparent").iter().count(), 1);
    assert_eq!(trace::Place::of(&headers), Some(place));
});
