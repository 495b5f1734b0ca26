//! Trace context of any shape: afterwards there is one parent, and its trace id is the one that was returned.
#![no_main]

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use libfuzzer_sys::fuzz_target;

#[path = "../../src/trace.rs"]
mod trace;

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("traceparent", value);
        }
    }
    let id = trace::adopt(&mut headers);
    let parents: Vec<&HeaderValue> = headers.get_all("traceparent").iter().collect();
    assert_eq!((id.len(), parents.len()), (32, 1));
    assert_eq!(parents[0].to_str().expect("text").split('-').nth(1), Some(id.as_str()));
});
