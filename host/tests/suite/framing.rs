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

/// Whether the last answer has this body, with a length or in one chunk.
fn ends_with_body(answers: &str, body: &str) -> bool {
    answers.ends_with(&format!("\r\n\r\n{body}")) || answers.ends_with(&format!("\r\n{body}\r\n0\r\n\r\n"))
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
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
