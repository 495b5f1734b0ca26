//! Correct behind a proxy and towards any client: what HTTP says, where implementations differ or attackers look.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::metrics::{sample, scrape};
use crate::support::*;

#[tokio::test]
async fn conflicting_lengths_are_refused_and_the_connection_closes() {
    let host = TestHost::serving("gather").start().await;
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding: chunked\r\ncontent-length:5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = raw(host.addr, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head}: nothing after it is answered: {answer}");
    }
    let chunked =
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let answer = raw(host.addr, chunked).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n3"), "{answer}");
}

#[tokio::test]
async fn the_host_must_be_there_once() {
    let host = TestHost::serving("echo").start().await;
    for head in ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n", "Host: not a host\r\n", "Host: \u{e9}\r\n"] {
        let answer = raw(host.addr, format!("GET / HTTP/1.1\r\n{head}\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("client_bad_request"), "{head}: {answer}");
    }
}

#[tokio::test]
async fn every_form_of_a_target_reaches_the_guest() {
    let host = TestHost::serving("echo").start().await;
    for (target, seen_target, authority) in [
        ("/path?query", "/path?query", "x"),
        ("http://named.example/path", "/path", "named.example"),
        ("HTTP://named.example:81", "/", "named.example:81"),
        ("*", "*", "x"),
        ("//double//slash", "//double//slash", "x"),
        ("/%2e%2e/%00", "/%2e%2e/%00", "x"),
    ] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = raw(host.addr, request.as_bytes()).await;
        assert!(answer.contains(&format!("seen-target: {seen_target}\r\n")), "{target}: {answer}");
        assert!(answer.contains(&format!("seen-authority: {authority}\r\n")), "{target}: {answer}");
    }
}

#[tokio::test]
async fn the_crumbs_of_a_cookie_are_one_field_before_they_are_counted_and_passed() {
    let host = TestHost::serving("echo").start().await;
    let crumbs: Vec<String> = (0..150).map(|n| format!("c{n}={n}")).collect();
    let sent: Vec<(&str, &str)> = crumbs.iter().map(|crumb| ("cookie", crumb.as_str())).collect();
    let answer = ask(Protocol::Http2, host.addr, "GET", "/", &sent).await;
    assert_eq!((answer.status.as_u16(), answer.header("seen-cookies")), (200, &*crumbs.join("; ")));
    assert_eq!(answer.header("seen-headers"), "cookie,traceparent");
    // HTTP/1.1 has no crumbs: what comes there is passed as it is.
    let answer = ask(Protocol::Http1, host.addr, "GET", "/", &sent[..2]).await;
    assert_eq!(answer.header("seen-cookies"), "c0=0|c1=1");
}

#[tokio::test]
async fn connect_is_refused_and_an_upgrade_is_not_made() {
    let host = TestHost::serving("echo").start().await;
    let connect =
        raw(host.addr, b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\nConnection: close\r\n\r\n")
            .await;
    assert!(connect.starts_with("HTTP/1.1 405 ") && connect.contains("client_method_not_allowed"), "{connect}");
    assert!(connect.to_lowercase().contains("allow: get, head"), "{connect}");
    let upgrade = raw(
        host.addr,
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    )
    .await;
    assert!(upgrade.starts_with("HTTP/1.1 200 "), "answered as a plain request: {upgrade}");
    assert!(!upgrade.contains("seen-headers: upgrade") && !upgrade.contains(",upgrade"), "{upgrade}");
}

#[tokio::test]
async fn fields_that_connection_names_stay_with_the_host() {
    let host = TestHost::serving("echo").start().await;
    let headers = [
        ("connection", "x-secret, keep-alive"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "1"),
        ("x-open", "1"),
    ];
    let answer = ask(Protocol::Http1, host.addr, "GET", "/", &headers).await;
    assert_eq!(answer.header("seen-headers"), "traceparent,x-open");
    // A client must not be able to take away what says where and how large its request is.
    let answer = raw(
        host.addr,
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: host, content-length, close\r\nContent-Length: 3\r\n\r\nabc",
    )
    .await;
    assert!(answer.contains("seen-authority: x\r\n") && answer.contains("abc"), "{answer}");
}

#[tokio::test]
async fn a_guest_cannot_break_the_framing() {
    let host = TestHost::serving("liar").start().await;
    for protocol in BOTH {
        // A body shorter or longer than announced: the client is told when it shows before the head goes out (a guest may
        // be interrupted at any time), else the answer is cut. It is never taken for whole.
        for target in ["/short", "/long"] {
            let mut client = Client::connect(protocol, host.addr).await;
            match client.send(request("GET", host.addr, target, &[])).await {
                Ok(told) => {
                    assert_eq!(told.header("taffrail-error"), "guest_body_broken", "{protocol:?} {target}: {told:?}")
                }
                Err(error) => assert!(is_cut(&error), "{protocol:?} {target}: {error:?}"),
            }
        }

        let early = ask(protocol, host.addr, "GET", "/status-103", &[]).await;
        assert_eq!((early.status.as_u16(), early.header("taffrail-error")), (502, "guest_bad_response"));
        let mut client = Client::connect(protocol, host.addr).await;
        for (target, status) in [("/status-204", 204), ("/status-304", 304)] {
            let answer = client.send(request("GET", host.addr, target, &[])).await.expect("an answer");
            assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0), "{protocol:?}");
            assert_eq!(answer.header("transfer-encoding"), "", "{protocol:?}");
        }
        let refused = client.send(request("GET", host.addr, "/hop-by-hop", &[])).await.expect("an answer");
        assert_eq!(refused.text(), "6 of 6 refused", "{protocol:?}");
        let error = ask(protocol, host.addr, "HEAD", "/status-103", &[]).await;
        assert_eq!((error.status.as_u16(), error.body.len()), (502, 0), "HEAD has no body, whoever answers");
        assert_eq!(error.header("content-length"), early.header("content-length"), "as that of GET");
    }
}

/// Monitors send HEAD, caches get 304: what a guest does wrong after its head is no affair of theirs.
#[tokio::test]
async fn nothing_spoils_an_answer_without_a_body() {
    let host = TestHost::serving("fail").start().await;
    for protocol in BOTH {
        for (method, target, status) in [
            ("HEAD", "/head-trap", 200),
            ("GET", "/204-trap", 204),
            ("GET", "/304-trap", 304),
            ("HEAD", "/304-trap", 304),
        ] {
            let answer = ask(protocol, host.addr, method, target, &[]).await;
            let seen = (answer.status.as_u16(), answer.header("taffrail-error"), answer.body.len());
            assert_eq!(seen, (status, "", 0), "{protocol:?} {method} {target}");
            let length = if method == "HEAD" && target == "/head-trap" { "6" } else { "" };
            assert_eq!(answer.header("content-length"), length, "{protocol:?} {method} {target}");
        }
    }
    let late = async || sample(&scrape(&host).await, "taffrail_guest_late_failures_total{", "reason=\"guest_trapped\"");
    eventually("each of the failures is counted", async || late().await == 8.0).await;
    let text = scrape(&host).await;
    assert_eq!(sample(&text, "taffrail_http_requests_total{", "reason=\"guest_trapped\""), 0.0, "{text}");
}

/// It is whole with its head, whatever the guest does after that.
#[tokio::test]
async fn an_answer_of_no_bytes_is_whole_at_once() {
    let host = TestHost::serving("liar").start().await;
    for (protocol, number) in [(Protocol::Http1, 1.0), (Protocol::Http2, 2.0)] {
        let mut client = Client::connect(protocol, host.addr).await;
        let (sender, body) = open_body();
        let answer = client.send(request_with("POST", host.addr, "/nothing-yet", &[], body)).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.header("content-length")), (200, "0"), "{protocol:?}");
        drop((sender, client));
        let ok = async || sample(&scrape(&host).await, "taffrail_http_requests_total{", "reason=\"ok\"");
        eventually("it is booked as ok", async || ok().await == number).await;
    }
    let text = scrape(&host).await;
    assert_eq!(sample(&text, "taffrail_http_requests_total{", "reason=\"client_gone\""), 0.0, "{text}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let host = TestHost::serving("echo").start().await;
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    let last = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = raw(host.addr, format!("{requests}{last}").as_bytes()).await;
    let seen: Vec<&str> = answers.lines().filter_map(|line| line.strip_prefix("seen-target: ")).collect();
    let expected: Vec<String> = (0..20).map(|n| format!("/{n}")).chain(["/last".to_owned()]).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_guest_reads_it() {
    let host = TestHost::serving("gather").start().await;
    let mut stream = TcpStream::connect(host.addr).await.expect("the host accepts");
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head).await.expect("sent");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.expect("the interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn bytes_that_are_no_text_pass_in_fields() {
    let host = TestHost::serving("echo").start().await;
    let answer =
        raw(host.addr, b"GET / HTTP/1.1\r\nHost: x\r\nX-Bytes: \xff\xfe\x80\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-bytes"), "{answer}");
}

#[tokio::test]
async fn forwarded_headers_count_from_a_trusted_proxy_alone() {
    let headers =
        [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "app.example")];
    let trusting = TestHost::serving("echo").with("--trusted-proxy", "127.0.0.0/8").start().await;
    let wary = TestHost::serving("echo").start().await;
    for protocol in BOTH {
        let believed = ask(protocol, trusting.addr, "GET", "/", &headers).await;
        assert_eq!(believed.header("seen-scheme"), "https", "{protocol:?}");
        assert_eq!(believed.header("seen-authority"), "app.example", "{protocol:?}");
        let ignored = ask(protocol, wary.addr, "GET", "/", &headers).await;
        assert_eq!(ignored.header("seen-scheme"), "http", "{protocol:?}");
        assert_eq!(ignored.header("seen-authority"), wary.addr.to_string(), "{protocol:?}");
    }
    let bad = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-host", "not a host")];
    assert_eq!(ask(Protocol::Http1, trusting.addr, "GET", "/", &bad).await.status, 400);
}

#[tokio::test]
async fn garbage_and_tls_on_the_plain_port_are_refused() {
    let host = TestHost::serving("hello").start().await;
    let client_hello =
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x00\x00\x02\x13\x01\r\n\r\n";
    for bytes in [
        &client_hello[..],
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\xff\xff\xff\xff\n\n",
    ] {
        let answer = raw(host.addr, bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{:?}: {answer}", String::from_utf8_lossy(bytes));
    }
    let preface_then_garbage =
        raw(host.addr, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff").await;
    assert!(!preface_then_garbage.contains("HTTP/1.1"), "{preface_then_garbage}");
    assert_eq!(get(host.addr, "/ping").await.text(), "OK");
}

#[tokio::test]
async fn trace_context_reaches_the_guest_and_is_made_when_missing() {
    let host = TestHost::serving("echo").start().await;
    let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for protocol in BOTH {
        let kept = ask(protocol, host.addr, "GET", "/", &[("traceparent", sent), ("tracestate", "vendor=1")]).await;
        assert_eq!(kept.header("seen-traceparent"), sent, "{protocol:?}");
        assert!(kept.header("seen-headers").contains("tracestate"), "{protocol:?}");
        let made = ask(protocol, host.addr, "GET", "/", &[("tracestate", "vendor=1")]).await;
        let parts: Vec<&str> = made.header("seen-traceparent").split('-').collect();
        assert_eq!((parts.len(), parts[0], parts[1].len(), parts[2].len(), parts[3]), (4, "00", 32, 16, "00"));
        assert!(!made.header("seen-headers").contains("tracestate"), "{protocol:?}");
    }
}
