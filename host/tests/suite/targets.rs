//! Whom a request is for: hosts and targets that are none are refused before a guest sees them.

use crate::support::*;

#[tokio::test]
async fn a_host_with_userinfo_without_a_port_or_with_a_broken_literal_is_refused() {
    let host = TestHost::serving("echo").start().await;
    for authority in
        ["user@x", "user:secret@x:80", "x:port", "x:65536", "x:-1", "[::1", "[::1]x", "[x]", "[192.0.2.1]", "::1"]
    {
        for head in [
            format!("GET / HTTP/1.1\r\nHost: {authority}\r\n"),
            format!("GET http://{authority}/ HTTP/1.1\r\nHost: x\r\n"),
        ] {
            let answer = raw(host.addr, format!("{head}Connection: close\r\n\r\n").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer}");
        }
        let refused = ask(Protocol::Http2, host.addr, "GET", "/", &[("host", authority)]).await;
        assert_eq!(
            (refused.status.as_u16(), refused.header("taffrail-error")),
            (400, "client_bad_request"),
            "{authority}"
        );
    }
    let mut client = Client::connect(Protocol::Http2, host.addr).await;
    let mut request = request("GET", host.addr, "/", &[]);
    *request.uri_mut() = format!("http://user@{}/", host.addr).parse().expect("a URI");
    assert_eq!(client.send(request).await.expect("an answer").status, 400, "in :authority as well");
    for authority in ["x", "x:", "x:81", "[::1]", "[2001:db8::1]:81"] {
        let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        let answer = raw(host.addr, request.as_bytes()).await;
        assert!(answer.contains(&format!("seen-authority: {authority}\r\n")), "{authority}: {answer}");
    }
}

#[tokio::test]
async fn authority_and_host_of_http2_name_one_host() {
    let host = TestHost::serving("echo").start().await;
    for (named, status) in [("other.example", 400), ("127.0.0.1:1", 400), (&*host.addr.to_string(), 200)] {
        let answer = ask(Protocol::Http2, host.addr, "GET", "/", &[("host", named)]).await;
        assert_eq!(answer.status, status, "{named}: {answer:?}");
    }
}

#[tokio::test]
async fn an_asterisk_is_for_options_and_an_authority_for_connect_alone() {
    let host = TestHost::serving("echo").start().await;
    for (line, status) in [
        ("OPTIONS *", 200),
        ("GET *", 400),
        ("POST *", 400),
        ("GET x:80", 400),
        ("OPTIONS x.example", 400),
        ("CONNECT x:80", 405),
        ("GET /*", 200),
    ] {
        let answer =
            raw(host.addr, format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        assert_eq!(answer.contains("client_bad_request"), status == 400, "{line}: {answer}");
    }
}

#[tokio::test]
async fn the_method_and_every_part_of_a_target_count_as_header() {
    let host = TestHost::serving("echo").start().await;
    let long = "x".repeat(33 * 1024);
    for line in [format!("{long} /"), format!("GET /?{long}"), format!("GET /#{long}"), format!("GET http://{long}/")] {
        let answer =
            raw(host.addr, format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{}: {answer}", &line[..12]);
        assert!(answer.contains("client_header_too_large"), "{}: {answer}", &line[..12]);
    }
    let half = "x".repeat(17 * 1024);
    let both = format!("GET /#{half} HTTP/1.1\r\nHost: x\r\nX-Half: {half}\r\n\r\n");
    assert!(raw(host.addr, both.as_bytes()).await.starts_with("HTTP/1.1 431 "), "they count together");
    for protocol in BOTH {
        let answer = ask(protocol, host.addr, &long, "/", &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("taffrail-error")), (431, "client_header_too_large"));
    }
}
