//! Where a request ends: every legal upload is taken, and nothing is smuggled behind one.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

/// Bodies that look like a head.
const LIKE_A_HEAD: [&str; 3] = [
    "--b\r\nContent-Disposition: form-data; name=\"f\"\r\nContent-Length: 2\r\n\r\nhi\r\n--b--\r\n",
    "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
];

fn chunked(fields: &str, body: &str) -> String {
    let chunk = if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
    format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{fields}\r\n{chunk}0\r\n\r\n")
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

/// A guest that has not ended with its head answers in chunks.
fn ends_with_body(answer: &str, body: &str) -> bool {
    let chunked = format!("\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    answer.ends_with(&format!("\r\n\r\n{body}")) || answer.ends_with(&chunked)
}

#[tokio::test]
async fn a_chunked_upload_is_taken_whatever_its_body_looks_like() {
    let host = TestHost::serving("gather").start().await;
    for body in LIKE_A_HEAD {
        let answer = raw(host.addr, chunked("Connection: close\r\n", body).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && ends_with_body(&answer, &body.len().to_string()), "{answer}");
        for protocol in BOTH {
            let mut client = Client::connect(protocol, host.addr).await;
            for _ in 0..2 {
                let (mut sender, streamed) = open_body(); // of unknown length: chunked over HTTP/1.1
                let send = async move { sender.send_data(body.into()).await };
                let asked = client.send(request_with("POST", host.addr, "/", &[], streamed));
                let (answer, _) = tokio::join!(asked, send);
                assert_eq!(answer.expect("an answer").text(), body.len().to_string(), "{protocol:?} {body}");
            }
        }
    }
}

/// The bytes of a body are many reads, and the next head comes in the middle of one.
#[tokio::test]
async fn large_uploads_on_a_kept_connection_are_all_taken() {
    const CHUNK: usize = 100_000;
    let host = TestHost::serving("gather").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        for round in 0..6 {
            let sent = if round % 2 == 0 {
                let (mut sender, streamed) = open_body();
                let send = async move {
                    for _ in 0..8 {
                        sender.send_data(Bytes::from(vec![b'\n'; CHUNK])).await.expect("the host reads");
                    }
                };
                tokio::join!(client.send(request_with("POST", host.addr, "/", &[], streamed)), send).0
            } else {
                let whole = Full::new(Bytes::from(vec![b'\n'; 8 * CHUNK])).boxed_unsync();
                client.send(request_with("POST", host.addr, "/", &[], whole)).await
            };
            assert_eq!(sent.expect("an answer").text(), (8 * CHUNK).to_string(), "{protocol:?} {round}");
        }
    }
}

#[tokio::test]
async fn a_chunked_request_may_be_pipelined() {
    let host = TestHost::serving("gather").start().await;
    let length = |body: &str| format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut requests: String = LIKE_A_HEAD.iter().map(|body| chunked("", body) + &length(body)).collect();
    requests += &chunked("Connection: close\r\n", "");
    let answers = raw(host.addr, requests.as_bytes()).await;
    assert_eq!(statuses(&answers), ["200"; 7], "{answers}");
}

/// A body that ends like a chunked head cannot vouch for the head behind it, wherever that is cut: the first part comes with the
/// request before it and has been read when that is answered.
#[tokio::test]
async fn a_request_with_both_lengths_is_refused_behind_another_and_cut_anywhere() {
    let host = TestHost::serving("gather").start().await;
    let body = "\nTransfer-Encoding: chunked\r\n\r";
    let first = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for second in [
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\ncontent-length:5\r\ntransfer-encoding:chunked\r\n\r\n0\r\n\r\n",
    ] {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
        for at in (0..second.len() - "0\r\n\r\n".len()).step_by(3) {
            let mut stream = TcpStream::connect(host.addr).await.expect("the host accepts");
            stream.write_all(format!("{first}{}", &second[..at]).as_bytes()).await.expect("the host reads");
            let mut answers = Vec::new();
            while !ends_with_body(&String::from_utf8_lossy(&answers), &body.len().to_string()) {
                assert_ne!(stream.read_buf(&mut answers).await.expect("the first answer"), 0, "{at}");
            }
            stream.write_all(format!("{}{smuggled}", &second[at..]).as_bytes()).await.expect("the host reads");
            let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answers)).await.expect("the host closes");
            let answers = String::from_utf8_lossy(&answers);
            assert_eq!(statuses(&answers), ["200", "400"], "{at}: {answers}");
            assert!(answers.contains("exclude each other"), "{at}: {answers}");
        }
    }
}

#[tokio::test]
async fn a_transfer_coding_other_than_chunked_alone_is_refused() {
    let host = TestHost::serving("gather").start().await;
    for coding in ["gzip, chunked", "chunked, chunked", "gzip\r\nTransfer-Encoding: chunked"] {
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n");
        let answer = raw(host.addr, format!("{request}{request}").as_bytes()).await;
        assert_eq!(statuses(&answer), ["400"], "{coding}: {answer}");
        assert!(answer.contains("client_bad_request") && answer.contains("other than chunked"), "{coding}: {answer}");
    }
}

/// A client that is still sending must get the answer that came before its body was read, and be told that the connection ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_body_was_read_arrives_whatever_the_client_sends_on() {
    const TIMES: usize = 10;
    let hello = TestHost::serving("hello").start().await;
    let small = TestHost::serving("gather").with("--max-body", "1KiB").start().await;
    // By the guest that does not read, by the length or within the body, and for the head.
    for (addr, head, status) in [
        (hello.addr, "POST /ping HTTP/1.1\r\nHost: x\r\n", 405),
        (hello.addr, "POST /nowhere HTTP/1.1\r\nHost: x\r\n", 404),
        (small.addr, "POST / HTTP/1.1\r\nHost: x\r\n", 413),
        (hello.addr, "POST /ping HTTP/1.1\r\n", 400),
    ] {
        for size in [2_000, 300_000, 5_000_000] {
            let body = vec![b'x'; size];
            let with_length = format!("{head}Content-Length: {size}\r\n\r\n");
            let in_a_chunk = format!("{head}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n");
            let length = [with_length.as_bytes(), &body].concat();
            let chunked = [in_a_chunk.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
            for request in [length, chunked] {
                for _ in 0..TIMES {
                    let mut stream = TcpStream::connect(addr).await.expect("a connection");
                    stream.write_all(&request).await.expect("the host reads on");
                    let mut answer = vec![0; 4096];
                    let count = stream.read(&mut answer).await.expect("an answer, and no reset");
                    let answer = String::from_utf8_lossy(&answer[..count]);
                    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head} {size}: {answer}");
                }
            }
        }
    }
}

/// One that sends on without an end is not read for ever, and holds up no drain.
#[tokio::test]
async fn a_client_that_never_stops_sending_holds_up_no_drain() {
    let mut host = TestHost::serving("hello").with("--drain-timeout", "1m").start().await;
    let mut stream = TcpStream::connect(host.addr).await.expect("a connection");
    stream.write_all(b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n").await.expect("sent");
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..count]).to_lowercase();
    assert!(answer.starts_with("http/1.1 413 ") && answer.contains("connection: close"), "{answer}");
    let (mut reading, mut writing) = stream.into_split();
    let sending = tokio::spawn(async move {
        let mut endless = tokio::io::repeat(b'x');
        tokio::io::copy(&mut endless, &mut writing).await
    });
    assert_eq!(
        reading.read(&mut [0; 1]).await.expect("no reset: all was written"),
        0,
        "the host has said that no more comes"
    );
    assert_eq!(host.drain().await.expect("drained").cut, 0, "nothing was in flight");
    sending.await.expect("no panic").expect_err("the host has closed at last");
}
