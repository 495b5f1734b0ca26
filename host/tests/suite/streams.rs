//! Requests and responses stream in both directions, and reach the guest as the client sent them.

use bytes::Bytes;
use http_body_util::BodyExt;

use crate::support::*;

#[tokio::test]
async fn a_chunk_comes_back_before_the_next_one_is_sent() {
    let host = TestHost::serving("echo").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        let (mut sender, body) = open_body();
        let mut response = client.open(request_with("POST", host.addr, "/", &[], body)).await.expect("a head");
        for round in 0..5 {
            let chunk = Bytes::from(format!("chunk {round}"));
            sender.send_data(chunk.clone()).await.expect("the host reads");
            let back = response.body_mut().frame().await.expect("a frame").expect("no error");
            assert_eq!(back.into_data().expect("data"), chunk, "{protocol:?}");
        }
        drop(sender);
        assert_eq!(whole(response).await.expect("an end").text(), "", "{protocol:?}");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let host = TestHost::serving("echo").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        let (mut sender, body) = open_body();
        let headers = [("te", "trailers"), ("trailer", "checksum")];
        let response = client.open(request_with("POST", host.addr, "/", &headers, body)).await.expect("a head");
        sender.send_data("body".into()).await.expect("the host reads");
        let trailers = [("checksum".parse().unwrap(), "1234".parse().unwrap())].into_iter().collect();
        sender.send_trailers(trailers).await.expect("the host reads");
        drop(sender);
        let answer = whole(response).await.expect("a whole answer");
        assert_eq!(answer.text(), "body", "{protocol:?}");
        assert_eq!(answer.trailers.expect("trailers")["checksum"], "1234", "{protocol:?}");
    }
}

#[tokio::test]
async fn method_target_scheme_and_authority_reach_the_guest() {
    let host = TestHost::serving("echo").start().await;
    for protocol in BOTH {
        let answer = ask(protocol, host.addr, "PATCH", "/a%20b//c?d=e&d=%00", &[("x-kind", "one")]).await;
        assert_eq!(answer.header("seen-method"), "Method::Patch", "{protocol:?}");
        assert_eq!(answer.header("seen-target"), "/a%20b//c?d=e&d=%00", "{protocol:?}");
        assert_eq!(answer.header("seen-scheme"), "http", "{protocol:?}");
        assert_eq!(answer.header("seen-authority"), host.addr.to_string(), "{protocol:?}");
        assert!(answer.header("seen-headers").contains("x-kind"), "{protocol:?}");
    }
    let host_header = ask(Protocol::Http1, host.addr, "GET", "/", &[("host", "example.com")]).await;
    assert_eq!(host_header.header("seen-authority"), "example.com");
    let absolute =
        raw(host.addr, b"GET http://named.example:81/x HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n").await;
    assert!(absolute.contains("seen-authority: named.example:81\r\n"), "{absolute}");
    let old = raw(host.addr, b"GET /x HTTP/1.0\r\n\r\n").await;
    assert!(old.contains("seen-authority: localhost\r\n"), "{old}");
    let missing = raw(host.addr, b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(missing.starts_with("HTTP/1.1 400 ") && missing.contains("client_bad_request"), "{missing}");
}

/// The guest gets 64 MiB and has a memory of 128 MiB at most; the host must not hold what it passes on.
#[test]
fn a_large_body_is_echoed_in_a_stream_with_bounded_memory() {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 1024;
    let process = TestHost::serving("echo").with("--max-body", "100MiB").spawn();
    let (addr, before) = (process.addr(), process.peak_memory());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for protocol in BOTH {
        runtime.block_on(async {
            let mut client = Client::connect(protocol, addr).await;
            let (mut sender, body) = open_body();
            let mut response = client.open(request_with("POST", addr, "/", &[], body)).await.expect("a head");
            let sending = tokio::spawn(async move {
                let chunk: Bytes = (0..CHUNK).map(|byte| (byte % 251) as u8).collect();
                for _ in 0..CHUNKS {
                    sender.send_data(chunk.clone()).await.expect("the host reads");
                }
            });
            let mut received = 0;
            while let Some(frame) = response.body_mut().frame().await {
                let data = frame.expect("no error").into_data().expect("data");
                let expected = |(at, byte): (usize, &u8)| *byte == ((received + at) % CHUNK % 251) as u8;
                assert!(data.iter().enumerate().all(expected), "{protocol:?}: the bytes differ after {received}");
                received += data.len();
            }
            assert_eq!(received, CHUNK * CHUNKS, "{protocol:?}");
            sending.await.expect("all was sent");
        });
    }
    let grown = process.peak_memory().saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "the host's memory grew by {grown} bytes");
}

#[tokio::test]
async fn empty_frames_do_not_wear_the_guest_out() {
    let host = TestHost::serving("echo").start().await;
    let mut client = Client::connect(Protocol::Http2, host.addr).await;
    let (mut sender, body) = open_body();
    let response = client.open(request_with("POST", host.addr, "/", &[], body)).await.expect("a head");
    for _ in 0..50 {
        sender.send_data(Bytes::new()).await.expect("the host reads");
    }
    sender.send_data("at last".into()).await.expect("the host reads");
    drop(sender);
    assert_eq!(whole(response).await.expect("a whole answer").text(), "at last");
}
