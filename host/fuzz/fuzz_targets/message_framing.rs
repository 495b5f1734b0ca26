//! The framing of a connection's requests: never a panic, the same however the bytes are cut; legal requests are never refused, and a
//! head with both lengths always is.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the host uses more of it")]
#[path = "../../src/transport/message_framing.rs"]
mod message_framing;

use message_framing::{MessageFraming, Refused};

fn refused<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Refused> {
    let mut framing = MessageFraming::default();
    pieces.for_each(|piece| framing.received(piece));
    framing.refused()
}

/// A request with this body, framed in the way that the first byte picks.
fn request(data: &[u8]) -> Vec<u8> {
    let (way, body) = data.split_first().map_or((0, data), |(way, body)| (way % 3, body));
    let mut request = b"POST / HTTP/1.1\r\nHost: x\r\n".to_vec();
    match way {
        0 => request.extend(b"\r\n"),
        1 => {
            request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            request.extend(body);
        }
        _ => {
            request.extend(b"transfer-encoding:Chunked\r\n\r\n");
            for chunk in body.chunks(1 + body.first().map_or(0, |byte| usize::from(*byte))) {
                request.extend(format!("{:X};x\r\n", chunk.len()).bytes());
                request.extend(chunk);
                request.extend(b"\r\n");
            }
            request.extend(b"0\r\nContent-Length: 5\r\n\r\n");
        }
    }
    request
}

fuzz_target!(|data: &[u8]| {
    let at = data.first().map_or(0, |byte| usize::from(*byte)).min(data.len());
    let whole = refused(std::iter::once(data));
    assert_eq!(whole, refused([&data[..at], &data[at..]].into_iter()));
    assert_eq!(whole, refused(data.chunks(1)));

    let requests: Vec<Vec<u8>> = data.split(|byte| *byte == 0xff).map(request).collect();
    let mut legal = requests.concat();
    assert_eq!(refused(legal.chunks(at + 1)), None);
    legal.extend(b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
    let from = refused(legal.chunks(at + 1)).map(|refused| refused.from);
    assert_eq!(from, Some(requests.len() as u64));
});
