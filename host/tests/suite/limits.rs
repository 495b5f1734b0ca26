//! Every limit: one flag, one place, one reason.

use std::time::{Duration, Instant};

use bytes::Bytes;
use taffrail::internals::Loaded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

/// Checks an answer of the host's own.
fn refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("taffrail-error")), (status, reason), "{answer:?}");
    assert_eq!(answer.json()["reason"], reason, "{answer:?}");
}

async fn send(protocol: Protocol, host: &TestHost, target: &str) -> Answer {
    ask(protocol, host.addr, "GET", target, &[]).await
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_ends() {
    let host = TestHost::serving("hello").with("--max-connections", "2").start().await;
    let mut first = Client::connect(Protocol::Http1, host.addr).await;
    let mut second = Client::connect(Protocol::Http2, host.addr).await;
    for client in [&mut first, &mut second] {
        client.send(request("GET", host.addr, "/ping", &[])).await.expect("an answer");
    }
    let mut third = TcpStream::connect(host.addr).await.expect("the kernel accepts");
    third.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    let early = tokio::time::timeout(Duration::from_millis(300), third.read_to_string(&mut answer)).await;
    assert!(early.is_err() && answer.is_empty(), "not served yet: {answer}");
    drop(first);
    tokio::time::timeout(PATIENCE, third.read_to_string(&mut answer)).await.expect("in time").expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_head_that_takes_too_long_closes_the_connection() {
    let host = TestHost::serving("hello").with("--header-timeout", "300ms").with("--idle-timeout", "1h").start().await;
    for start in [&b""[..], b"G", b"GET /ping HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"PRI * HTTP/2.0\r\n"] {
        let since = Instant::now();
        let back = raw(host.addr, start).await;
        assert!(since.elapsed() >= Duration::from_millis(300), "not before its time");
        let closed = back.is_empty() || back.starts_with("<Connection reset"); // what was not read resets
        assert!(closed, "{:?}: {back}", String::from_utf8_lossy(start));
    }
    // Not the first head of the connection, either.
    let mut stream = TcpStream::connect(host.addr).await.expect("the host accepts");
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    read_until(&mut stream, "OK").await;
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost").await.expect("sent");
    read_until_closed(&mut stream).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let host = TestHost::serving("hello").with("--idle-timeout", "300ms").with("--header-timeout", "1h").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        client.send(request("GET", host.addr, "/ping", &[])).await.expect("an answer");
        let since = Instant::now(); // the host's clock began at the same answer, a moment before
        client.closed().await;
        assert!(since.elapsed() >= Duration::from_millis(200), "not before its time");
    }
}

#[tokio::test]
async fn a_large_header_is_refused_by_size_and_by_count() {
    let host = TestHost::serving("hello").start().await;
    for protocol in BOTH {
        let long = "x".repeat(33 * 1024);
        let answer = ask(protocol, host.addr, "GET", "/ping", &[("x-long", &long)]).await;
        refused(&answer, 431, "client_header_too_large");
        let path = format!("/{}", "p".repeat(33 * 1024));
        refused(&send(protocol, &host, &path).await, 431, "client_header_too_large");
        let names: Vec<String> = (0..101).map(|n| format!("x-{n}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
        refused(&ask(protocol, host.addr, "GET", "/ping", &many).await, 431, "client_header_too_large");
        assert_eq!(ask(protocol, host.addr, "GET", "/ping", &many[..90]).await.status, 200);
        let path = format!("/{}", "p".repeat(30 * 1024));
        assert_eq!(send(protocol, &host, &path).await.status, 404, "a long path below the limit reaches the guest");
    }
    // Far beyond the limit hyper answers by itself, before it has read everything.
    let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Huge: {}\r\n\r\n", "x".repeat(200 * 1024));
    assert!(raw(host.addr, huge.as_bytes()).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_is_sent() {
    let host = TestHost::serving("echo").with("--max-body", "1KiB").start().await;
    let answer = raw(
        host.addr,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("client_body_too_large"), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_refused() {
    let host = TestHost::serving("late").with("--max-body", "1KiB").start().await;
    let reader = TestHost::serving("fail").with("--max-body", "1KiB").start().await;
    for protocol in BOTH {
        // The guest answers without reading: nothing is too large yet.
        let mut client = Client::connect(protocol, host.addr).await;
        let (sender, body) = open_body();
        let response = client.open(request_with("POST", host.addr, "/", &[], body)).await.expect("a head");
        assert_eq!(response.status(), 200);
        drop((sender, response));
        // The guest reads after its head: the answer is cut.
        let mut client = Client::connect(protocol, reader.addr).await;
        let (mut sender, body) = open_body();
        let response = client.open(request_with("POST", reader.addr, "/late-drop", &[], body)).await.expect("a head");
        sender.send_data(Bytes::from(vec![b'x'; 2048])).await.expect("the host reads");
        cut(response).await;
    }
    // The guest reads before its head: the client is told.
    let host = TestHost::serving("gather").with("--max-body", "1KiB").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        let (mut sender, body) = open_body();
        let asked = tokio::spawn(async move { client.send(request_with("POST", host.addr, "/", &[], body)).await });
        sender.send_data(Bytes::from(vec![b'x'; 1024])).await.expect("the host reads");
        sender.send_data(Bytes::from_static(b"y")).await.expect("the host reads");
        refused(&asked.await.expect("no panic").expect("an answer"), 413, "client_body_too_large");
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_refused() {
    let host = TestHost::serving("gather").with("--body-timeout", "200ms").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        let (mut sender, body) = open_body();
        let asked = tokio::spawn(async move { client.send(request_with("POST", host.addr, "/", &[], body)).await });
        sender.send_data("some".into()).await.expect("the host reads");
        refused(&asked.await.expect("no panic").expect("an answer"), 408, "client_body_timeout");
        drop(sender);
    }
}

#[tokio::test]
async fn more_requests_than_the_limit_are_shed_at_once() {
    let host = TestHost::serving("gather").with("--max-in-flight", "1").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        let (mut sender, body) = open_body();
        let held = tokio::spawn(async move { client.send(request_with("POST", host.addr, "/", &[], body)).await });
        sender.send_data("held".into()).await.expect("the host reads: the guest runs");
        let mut answer = send(protocol, &host, "/").await;
        eventually("the held request has taken the slot", async || {
            answer = send(protocol, &host, "/").await;
            answer.status != 200
        })
        .await;
        refused(&answer, 503, "host_overloaded");
        assert_eq!(answer.header("retry-after"), "1");
        let continued = raw(
            host.addr,
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert!(continued.starts_with("HTTP/1.1 503 "), "decided before 100 Continue: {continued}");
        drop(sender);
        assert_eq!(held.await.expect("no panic").expect("an answer").text(), "4");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_ends_a_guest_that_computes_and_one_that_waits() {
    for (guest, target) in [("spin", "/spin"), ("sleep", "/sleep")] {
        let host = TestHost::serving(guest).with("--deadline", "300ms").start().await;
        for protocol in BOTH {
            refused(&send(protocol, &host, target).await, 504, "guest_deadline");
            assert_eq!(send(protocol, &host, "/").await.text(), "fine");
        }
    }
}

#[tokio::test]
async fn the_deadline_counts_the_body_and_blames_the_client_for_it() {
    let host = TestHost::serving("gather").with("--deadline", "300ms").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        let (sender, body) = open_body();
        let answer = client.send(request_with("POST", host.addr, "/", &[], body)).await.expect("an answer");
        refused(&answer, 504, "client_deadline");
        drop(sender);
    }
}

/// It asked its client once and never again: what it does since is its own affair.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_blames_a_guest_that_asked_for_the_body_and_then_computes() {
    let host = TestHost::serving("spin").with("--deadline", "300ms").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        let (sender, body) = open_body();
        let answer = client.send(request_with("POST", host.addr, "/asked", &[], body)).await.expect("an answer");
        refused(&answer, 504, "guest_deadline");
        drop(sender);
    }
}

#[tokio::test]
async fn after_the_head_the_deadline_cuts_the_response() {
    let host = TestHost::serving("flood").with("--deadline", "300ms").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        let response = client.open(request("GET", host.addr, "/flood", &[])).await.expect("a head");
        assert_eq!(response.status(), 200);
        cut(response).await;
    }
}

/// The client reads nothing, so that hyper asks the body for nothing: the cut must come all the same.
#[test]
fn the_deadline_and_the_write_timeout_cut_a_response_that_is_not_read() {
    for (flag, other, reason) in
        [("--deadline", "--write-timeout", "guest_deadline"), ("--write-timeout", "--deadline", "client_stalled")]
    {
        for protocol in BOTH {
            let process =
                TestHost::serving("flood").with(flag, "500ms").with(other, "1h").with("--max-in-flight", "1").spawn();
            let addr = process.addr();
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let mut client = Client::connect(protocol, addr).await;
                let response = client.open(request("GET", addr, "/flood", &[])).await.expect("a head");
                let line = process.wait_for_line(&format!("\"{reason}\""));
                assert!(line.contains("/flood"), "{protocol:?} {line}");
                assert_eq!(get(addr, "/").await.text(), "fine", "{protocol:?}: the slot is free");
                drop((client, response));
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_may_have_so_much_and_no_more() {
    let hog = TestHost::serving("hog").with("--guest-memory", "16MiB").start().await;
    let greedy = TestHost::serving("greedy").start().await;
    let liar = TestHost::serving("liar").start().await;
    let fail = TestHost::serving("fail").start().await;
    for protocol in BOTH {
        refused(&send(protocol, &hog, "/grow").await, 500, "guest_out_of_memory");
        refused(&send(protocol, &greedy, "/handles").await, 500, "guest_too_many_handles");
        refused(&send(protocol, &greedy, "/call").await, 500, "guest_call_too_large");
        let random = send(protocol, &greedy, "/random").await;
        if *IS_0_3 {
            assert_eq!(
                random.text(),
                (4 * 1024 * 1024).to_string(),
                "WASI 0.3 lets a host give less than it is asked for"
            );
        } else {
            refused(&random, 500, "guest_call_too_large");
        }
        refused(&send(protocol, &liar, "/large-header").await, 502, "guest_header_too_large");
        refused(&send(protocol, &fail, "/recurse").await, 500, "guest_stack_overflow");
        for host in [&hog, &greedy, &liar, &fail] {
            assert_eq!(send(protocol, host, "/").await.text(), "fine");
        }
    }
}

/// What the host holds for a guest is the guest's memory, whatever it is. Beside that there is what the guest adds between two looks,
/// and what the allocator keeps for each thread.
#[test]
fn what_the_host_holds_for_a_guest_is_the_guests_memory() {
    const BEYOND: u64 = 64 << 20;
    let bodies = if *IS_0_3 { &[][..] } else { &["/bodies"] }; // those of WASI 0.3 are written when they are read
    for target in ["/fields", "/append", "/requests"].iter().chain(bodies) {
        let process = TestHost::serving("greedy").with("--guest-memory", "16MiB").spawn();
        let addr = process.addr();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            assert_eq!(get(addr, "/").await.text(), "fine");
            let before = process.peak_memory();
            for _ in 0..5 {
                for protocol in BOTH {
                    refused(&ask(protocol, addr, "GET", target, &[]).await, 500, "guest_out_of_memory");
                }
            }
            let grown = process.peak_memory() - before;
            assert!(grown < (16 << 20) + BEYOND, "{target}: {} MiB", grown >> 20);
            assert_eq!(get(addr, "/").await.text(), "fine");
        });
    }
}

/// No more is made of what a guest says than the log keeps.
#[test]
fn a_guests_error_is_cut_before_it_is_copied() {
    let mut process = TestHost::serving("greedy").spawn();
    let addr = process.addr();
    let answer = tokio::runtime::Runtime::new().unwrap().block_on(get(addr, "/error"));
    refused(&answer, 502, "guest_error");
    let line = process.wait_for_line("guest_error");
    assert!(
        line.contains("InternalError(Some(\\\"eee") && line.contains("(cut") && line.len() < 20 << 10,
        "{}",
        line.len()
    );
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

/// The flag says how large a response's header may be, not a limit that Wasmtime has for a guest's fields.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_header_of_a_response_may_be_as_large_as_the_flag_says() {
    let host = TestHost::serving("liar").start().await;
    // A guest of WASI 0.3 is told that its fields are too large, and this one traps then.
    let (status, reason) = if *IS_0_3 { (500, "guest_trapped") } else { (502, "guest_header_too_large") };
    for protocol in BOTH {
        refused(&send(protocol, &host, "/huge-header").await, status, reason);
    }
    let wide = TestHost::serving("liar").with("--max-response-header-size", "1MiB").start().await;
    let answer = get(wide.addr, "/huge-header").await; // hyper's client takes 16 KiB over HTTP/2
    let size: usize = answer.headers.get_all("x-huge").iter().map(|value| value.len()).sum();
    assert_eq!((answer.status.as_u16(), size), (200, 300 * 1024));
}

/// A client tells the host's own answers from the component's by that header.
#[tokio::test]
async fn a_guest_cannot_speak_for_the_host() {
    let host = TestHost::serving("liar").start().await;
    for protocol in BOTH {
        let answer = send(protocol, &host, "/host's-word").await;
        assert_eq!((answer.status.as_u16(), answer.headers.get("taffrail-error")), (200, None));
    }
}

#[tokio::test]
async fn a_table_may_grow_so_far() {
    let file = wat_component_with(
        "",
        "(table $table 1 funcref)",
        "(if (i32.eq (table.grow $table (ref.null func) (i32.const 200000)) (i32.const -1)) (then unreachable))",
    );
    let host = Setup::file(file.path()).start().await;
    refused(&get(host.addr, "/").await, 500, "guest_table_too_large");
}

/// In a group of 64 MiB all guests together get less than one guest alone may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_guests_together_may_have_so_much_and_no_more() {
    let settings = TestHost::serving("hog").config().expect("a configuration").guest;
    let one = Loaded::new(&settings, 8, 1 << 30).expect("a guest").probe().await.expect("one instance");
    let error = Loaded::new(&settings, 8, one - 1).expect("a guest").probe().await.expect_err("a byte is missing");
    assert!(format!("{error:#}").contains("memory"), "{error:#}");
}

#[tokio::test]
async fn http2_streams_are_bounded() {
    let host = TestHost::serving("gather").with("--http2-max-streams", "3").start().await;
    let mut client = Client::connect(Protocol::Http2, host.addr).await;
    client.send(request("GET", host.addr, "/", &[])).await.expect("an answer: the settings have come");
    let Client::Http2(sender) = client else { unreachable!() };
    let open = || {
        let (body_sender, body) = open_body();
        let mut sender = sender.clone();
        let asked = async move { sender.send_request(request_with("POST", host.addr, "/", &[], body)).await };
        (body_sender, tokio::spawn(asked))
    };
    let mut held: Vec<_> = (0..3).map(|_| open()).collect();
    for (body, _) in &mut held {
        body.send_data("x".into()).await.expect("a stream that runs");
    }
    let (fourth, mut asked) = open();
    drop(fourth); // complete, and yet:
    let early = tokio::time::timeout(Duration::from_millis(300), &mut asked).await;
    assert!(early.is_err(), "the fourth stream is not open while three are");
    for (body, asked) in held {
        drop(body);
        assert_eq!(asked.await.expect("no panic").expect("an answer").status(), 200);
    }
    assert_eq!(asked.await.expect("no panic").expect("an answer").status(), 200);
}

/// A client of HTTP/2 that opens streams and resets each at once, all of them in one piece.
fn opened_and_reset(streams: u32) -> Vec<u8> {
    use crate::support::frames::*;
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for stream in (1..).step_by(2).take(streams as usize) {
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &get_block("/")));
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    bytes
}

/// CVE-2023-44487: it costs the client nothing, and is an end of its connection alone.
#[tokio::test]
async fn http2_resets_without_end_close_the_connection() {
    let host = TestHost::serving("sleep").with("--idle-timeout", "1h").start().await;
    // Some are a client's right: it is still there, and is told of its settings alone.
    let (mut few, mut seen) = (TcpStream::connect(host.addr).await.expect("the host accepts"), Vec::new());
    few.write_all(&opened_and_reset(3)).await.expect("the host reads");
    let closed = async {
        while few.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
            continue;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(300), closed).await.is_err(), "three are no reason to close");

    let mut many = TcpStream::connect(host.addr).await.expect("the host accepts");
    many.write_all(&opened_and_reset(1000)).await.expect("the host reads");
    let mut seen = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, many.read_to_end(&mut seen)).await.expect("the host closes"); // or resets it
    // GOAWAY on stream 0, eight bytes or more: the last stream, and the code ENHANCE_YOUR_CALM.
    let calm = seen.windows(17).any(|frame| frame[3..9] == [7, 0, 0, 0, 0, 0] && frame[13..] == [0, 0, 0, 11]);
    assert!(calm, "{seen:02x?}");
    assert_eq!(get(host.addr, "/").await.text(), "fine", "others are served");
}

async fn read_until(stream: &mut TcpStream, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut seen)).await.expect("in time").expect("read");
        assert!(read > 0, "closed before {text:?}: {}", String::from_utf8_lossy(&seen));
    }
}

async fn read_until_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the host closes");
}

#[tokio::test]
async fn a_body_is_whole_or_an_error_never_silently_short() {
    let host = TestHost::serving("gather").start().await;
    for protocol in BOTH {
        let answer = {
            let mut client = Client::connect(protocol, host.addr).await;
            let (mut sender, body) = open_body();
            let asked = tokio::spawn(async move { client.send(request_with("POST", host.addr, "/", &[], body)).await });
            sender.send_data("12345".into()).await.expect("the host reads");
            drop(sender);
            asked.await.expect("no panic").expect("an answer")
        };
        assert_eq!(answer.text(), "5");
    }
    let broken = raw(host.addr, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
    assert!(broken.contains("client_body_broken"), "{broken}");
}
