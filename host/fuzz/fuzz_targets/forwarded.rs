//! Forwarded headers of any shape: never a panic, and never a client that no proxy named.
#![no_main]

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the host uses more of it")]
#[path = "../../src/http/forwarded.rs"]
mod forwarded;

const NAMES: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for (at, line) in data.split(|byte| *byte == b'\n').enumerate() {
        let name = line.first().map_or(at, |byte| usize::from(*byte)) % NAMES.len();
        if let Ok(value) = HeaderValue::from_bytes(line.get(1..).unwrap_or_default()) {
            headers.append(HeaderName::from_static(NAMES[name]), value);
        }
    }
    let peer = std::net::SocketAddr::from(([10, 0, 0, 1], 1));
    let trusted = [ipnet::IpNet::from(std::net::IpAddr::from([10, 0, 0, 1]))];
    let believed = forwarded::origin(peer, &headers, &trusted);
    assert!(believed.scheme.is_none_or(|scheme| ["http", "https"].contains(&scheme)));
    assert!(believed.host.is_none_or(|host| !host.is_empty()));
    let ignored = forwarded::origin(peer, &headers, &[]);
    assert_eq!((ignored.client, ignored.scheme, ignored.host), (peer.ip(), None, None));
});
