//! What a component may call: whom the operator names, bounded in time and number, and counted.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, Version};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::rustls;

use crate::support::*;
use crate::upstream::Upstream;

fn echo(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(request.body().clone()));
    if request.uri().path() == "/teapot" {
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
    }
    response
}

/// What the guest `fetch` reports of calls to these.
async fn lines(host: &TestHost, urls: &[&str]) -> String {
    let urls = urls.join(" ");
    ask(Protocol::Http1, host.addr, "GET", "/lines", &[("fetch", &urls)]).await.text().to_owned()
}

/// The metric of outbound calls, by its reason.
async fn counted(host: &TestHost, reason: &str) -> u64 {
    let text = get(host.admin, "/metrics").await.text().to_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("taffrail_outbound_requests_total") && line.contains(&format!("\"{reason}\"")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// A server that does not speak HTTP of itself: each connection is for the test.
async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

#[tokio::test]
async fn an_allowed_server_is_called_with_body_and_status() {
    let mut upstream = Upstream::start(echo).await;
    let url = format!("http://{}", upstream.addr);
    let host = TestHost::serving("fetch").with("--allow-outbound", &url).start().await;
    let mut client = Client::connect(Protocol::Http1, host.addr).await;
    let (mut sender, body) = open_body();
    let fetch = format!("{url}/teapot?q=1");
    let called = tokio::spawn(async move {
        client.send(request_with("POST", host.addr, "/", &[("fetch", &fetch)], body)).await.expect("an answer")
    });
    for piece in ["some ", "more"] {
        sender.send_data(piece.into()).await.expect("the host reads");
    }
    drop(sender);
    let answer = called.await.expect("no panic");
    assert_eq!((answer.status.as_u16(), answer.text()), (418, "some more"));
    let seen = upstream.next().await;
    assert_eq!((seen.method().as_str(), seen.uri().to_string().as_str()), ("POST", "/teapot?q=1"));
    assert_eq!(seen.headers()["host"], upstream.addr.to_string());
}

#[tokio::test]
async fn by_default_and_beyond_the_list_every_call_is_refused() {
    let upstream = Upstream::start(echo).await;
    let url = format!("http://{}/", upstream.addr);
    let closed = TestHost::serving("fetch").start().await;
    assert_eq!(lines(&closed, &[&url]).await, "ErrorCode::HttpRequestDenied");
    assert_eq!(counted(&closed, "refused").await, 1);
    let host = TestHost::serving("fetch").with("--allow-outbound", "https://*.example.com").start().await;
    for other in [url.as_str(), "http://a.example.com/", "https://example.com/", "https://a.example.com:8443/"] {
        assert_eq!(lines(&host, &[other]).await, "ErrorCode::HttpRequestDenied", "{other}");
    }
    assert_eq!(counted(&host, "refused").await, 4);
    assert_eq!(upstream.connections.load(Relaxed), 0);
}

#[test]
fn the_log_says_which_flag_would_allow_a_refused_call() {
    let process = TestHost::serving("fetch").with("--allow-outbound", "https://a.example").spawn();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let call = ask(Protocol::Http1, process.addr(), "GET", "/lines", &[("fetch", "https://b.example:81/secret?q")]);
    runtime.block_on(call);
    let line = process.wait_for_line("--allow-outbound");
    let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
    assert_eq!((line["scheme"].as_str(), line["server"].as_str()), (Some("https"), Some("b.example:81")));
    assert!(!line.to_string().contains("secret"), "{line}");
}

/// A name that the operator allowed may come to lead into the cluster, or to the metadata service: it must not be
/// followed there. `localhost` is such a name.
#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_refused_unless_its_network_is_named() {
    let upstream = Upstream::start(echo).await;
    let url = format!("http://localhost:{}", upstream.addr.port());
    let host = TestHost::serving("fetch").with("--allow-outbound", &url).start().await;
    assert_eq!(lines(&host, &[&url]).await, "ErrorCode::DestinationIpProhibited");
    assert_eq!(counted(&host, "prohibited_address").await, 1);
    assert_eq!(upstream.connections.load(Relaxed), 0);
    let open = TestHost::serving("fetch").with("--allow-outbound", &url).with("--outbound-network", "127.0.0.0/8");
    assert_eq!(lines(&open.start().await, &[&url]).await, "200");
}

#[tokio::test]
async fn a_name_or_a_server_that_is_not_there_is_told_apart() {
    let (gone, url) = listener().await;
    drop(gone);
    let nowhere = "http://nowhere.invalid";
    let host =
        TestHost::serving("fetch").with("--allow-outbound", &url).with("--allow-outbound", nowhere).start().await;
    assert_eq!(lines(&host, &[&url]).await, "ErrorCode::ConnectionRefused");
    let unknown = lines(&host, &[nowhere]).await;
    assert!(unknown.starts_with("ErrorCode::DnsError"), "{unknown}");
    assert_eq!((counted(&host, "connect_failed").await, counted(&host, "dns_failed").await), (1, 1));
}

#[tokio::test]
async fn connections_are_kept_and_shared_by_requests() {
    let upstream = Upstream::start(echo).await;
    let url = format!("http://{}", upstream.addr);
    let host = TestHost::serving("fetch").with("--allow-outbound", &url).start().await;
    for _ in 0..20 {
        assert_eq!(ask(Protocol::Http1, host.addr, "GET", "/", &[("fetch", &url)]).await.status, 200);
    }
    assert_eq!(upstream.connections.load(Relaxed), 1);
    eventually("all 20 are counted", async || counted(&host, "ok").await == 20).await;
}

/// Nobody can know that a server is just closing a connection that was kept. What may be sent twice is; nothing else.
#[tokio::test]
async fn a_get_on_a_kept_connection_that_the_server_closes_is_sent_once_more() {
    if *IS_0_3 {
        return; // its request says only at its end that it has no body, and is not repeated
    }
    let (server, url) = listener().await;
    let host = TestHost::serving("fetch").with("--allow-outbound", &url).start().await;
    let call =
        async |method: &str| ask(Protocol::Http1, host.addr, method, "/", &[("fetch", &url)]).await.status.as_u16();
    /// Reads a request, and answers it or not.
    async fn serve(stream: &mut tokio::net::TcpStream, answer: &str) {
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.expect("a request") > 0);
        stream.write_all(answer.as_bytes()).await.expect("it reads");
    }
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    // The connection is kept, then closed under the second request; that one comes again on a new connection.
    let (statuses, mut kept) = tokio::join!(async { [call("GET").await, call("GET").await] }, async {
        let (mut first, _) = server.accept().await.expect("a connection");
        serve(&mut first, answer).await;
        serve(&mut first, "").await;
        drop(first);
        let (mut second, _) = server.accept().await.expect("another connection");
        serve(&mut second, answer).await;
        second
    });
    assert_eq!(statuses, [200, 200]);
    // A POST is not repeated, wherever it fails.
    let (status, ()) = tokio::join!(call("POST"), async {
        serve(&mut kept, "").await;
        drop(kept);
    });
    assert_eq!(status, 502);
    // A new connection that brings nothing is the server's answer.
    let (status, _) = tokio::join!(call("GET"), async {
        let (mut silent, _) = server.accept().await.expect("a connection");
        serve(&mut silent, "").await;
    });
    assert_eq!(status, 502);
    eventually("each call is counted once", async || {
        (counted(&host, "ok").await, counted(&host, "broken").await) == (2, 2)
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_slow_has_so_long_for_each_step() {
    let (silent, url) = listener().await;
    let host = TestHost::serving("fetch")
        .with("--allow-outbound", &url)
        .with("--outbound-first-byte-timeout", "100ms")
        .with("--outbound-connect-timeout", "100ms")
        .with("--outbound-between-bytes-timeout", "100ms")
        .start()
        .await;
    assert_eq!(lines(&host, &[&url]).await, "ErrorCode::HttpResponseTimeout");
    assert_eq!(counted(&host, "first_byte_timeout").await, 1);
    drop(silent.accept().await);
    let stalling = tokio::spawn(async move {
        let (mut stream, _) = silent.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.expect("it reads");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let mut client = Client::connect(Protocol::Http1, host.addr).await;
    cut(client.open(request("GET", host.addr, "/", &[("fetch", &url)])).await.expect("a head")).await;
    assert_eq!(counted(&host, "between_bytes_timeout").await, 1);
    stalling.await.expect("the host closed the connection");
}

/// The guest may ask for less than the host allows: here for nothing beyond the time of a connection.
#[tokio::test]
async fn a_guest_may_have_less_patience_than_the_host() {
    let (_silent, url) = listener().await;
    let host = TestHost::serving("fetch")
        .with("--allow-outbound", &url)
        .with("--outbound-connect-timeout", "100ms")
        .with("--outbound-first-byte-timeout", "1h")
        .start()
        .await;
    let asked = [("fetch", url.as_str()), ("fetch-patience-ms", "0")];
    let answer = ask(Protocol::Http1, host.addr, "GET", "/lines", &asked).await;
    assert_eq!(answer.text(), "ErrorCode::HttpResponseTimeout");
}

#[tokio::test]
async fn a_connection_that_is_not_accepted_in_time_is_given_up() {
    // A backlog that is full: the kernel answers no further SYN.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(1).expect("listening");
    let addr = listener.local_addr().expect("an address");
    let mut held = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(std::time::Duration::from_millis(200), tokio::net::TcpStream::connect(addr)).await
    {
        held.push(connected.expect("connected"));
        assert!(held.len() < 100, "a backlog of one is never full");
    }
    let url = format!("http://{addr}");
    let host = TestHost::serving("fetch")
        .with("--allow-outbound", &url)
        .with("--outbound-connect-timeout", "100ms")
        .start()
        .await;
    assert_eq!(lines(&host, &[&url]).await, "ErrorCode::ConnectionTimeout");
    assert_eq!(counted(&host, "connect_timeout").await, 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_as_broken() {
    let (server, url) = listener().await;
    let host = TestHost::serving("fetch").with("--allow-outbound", &url).start().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = server.accept().await.expect("a connection");
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        }
    });
    let mut client = Client::connect(Protocol::Http1, host.addr).await;
    cut(client.open(request("GET", host.addr, "/", &[("fetch", &url)])).await.expect("a head")).await;
    assert_eq!(counted(&host, "broken").await, 1);
}

/// What is no answer has its own name for the guest and in the metric.
#[tokio::test]
async fn an_answer_that_is_none_is_named_for_what_it_is() {
    const ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 40]; // fatal, handshake_failure: RFC 8446, 6
    let (server, url) = listener().await;
    let secure = url.replace("http:", "https:");
    let host =
        TestHost::serving("fetch").with("--allow-outbound", &url).with("--allow-outbound", &secure).start().await;
    let fields: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let cases: [(&str, &[u8], &str, &str); 6] = [
        (&url, b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "HttpProtocolError", "malformed"),
        (&url, b"HTTP/1.1 200 OK\r\nno field\r\n\r\n", "HttpProtocolError", "malformed"),
        (&url, b"HTTP/1.1 999999 Odd\r\n\r\n", "HttpProtocolError", "malformed"),
        (&url, many.as_bytes(), "HttpResponseHeaderSectionSize", "header_too_large"),
        (&url, b"", "HttpResponseIncomplete", "broken"),
        (&secure, ALERT, "TlsAlertReceived", "tls_alert"),
    ];
    for (url, bytes, code, reason) in cases {
        let before = counted(&host, reason).await;
        let urls = [url];
        let (line, ()) = tokio::join!(lines(&host, &urls), async {
            let (mut stream, _) = server.accept().await.expect("a connection");
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(bytes).await;
        });
        let answer = String::from_utf8_lossy(bytes);
        assert!(line.starts_with(&format!("ErrorCode::{code}")), "{answer:?}: {line}");
        assert_eq!(counted(&host, reason).await, before + 1, "{answer:?}");
    }
    // In the body it is too late for a code; the metric tells.
    let mut client = Client::connect(Protocol::Http1, host.addr).await;
    let asked = async { client.open(request("GET", host.addr, "/", &[("fetch", &url)])).await.expect("a head") };
    let (response, ()) = tokio::join!(asked, async {
        let (mut stream, _) = server.accept().await.expect("a connection");
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nno chunk\r\n").await;
    });
    cut(response).await;
    assert_eq!(counted(&host, "malformed").await, 4);
}

#[tokio::test]
async fn a_head_that_is_huge_is_refused_and_a_body_that_is_huge_passes() {
    let (server, url) = listener().await;
    let host = TestHost::serving("fetch").with("--allow-outbound", &url).start().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = server.accept().await.expect("a connection");
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let count = stream.read(&mut head).await.unwrap_or(0);
                let answer = match head[..count].starts_with(b"GET /head") {
                    true => format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(200_000)).into_bytes(),
                    false => {
                        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n".to_vec();
                        answer.resize(answer.len() + 20_000_000, b'x');
                        answer
                    }
                };
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    let line = lines(&host, &[&format!("{url}/head")]).await;
    assert!(line.starts_with("ErrorCode::HttpResponseHeaderSectionSize"), "{line}");
    let answer = ask(Protocol::Http1, host.addr, "GET", "/", &[("fetch", &format!("{url}/body"))]).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 20_000_000));
}

#[tokio::test]
async fn calls_are_bounded_for_one_request_and_for_all() {
    let (_silent, url) = listener().await;
    let host = TestHost::serving("fetch")
        .with("--allow-outbound", &url)
        .with("--max-outbound-per-request", "2")
        .with("--outbound-first-byte-timeout", "100ms")
        .with("--outbound-connect-timeout", "100ms")
        .start()
        .await;
    let seen = lines(&host, &[&url, &url, &url]).await;
    assert_eq!(seen.lines().filter(|line| line.contains("HttpResponseTimeout")).count(), 2, "{seen}");
    assert_eq!(seen.lines().last(), Some("ErrorCode::ConnectionLimitReached"), "{seen}");
    let (silent, url) = listener().await;
    let all = TestHost::serving("fetch").with("--allow-outbound", &url).with("--max-outbound", "1").start().await;
    let mut client = Client::connect(Protocol::Http1, all.addr).await;
    let (addr, target) = (all.addr, url.clone());
    let held = tokio::spawn(async move { client.send(request("GET", addr, "/", &[("fetch", &target)])).await });
    let _connection = silent.accept().await.expect("the call is under way");
    assert_eq!(lines(&all, &[&url]).await, "ErrorCode::ConnectionLimitReached");
    assert_eq!(counted(&all, "too_many").await, 1);
    held.abort();
}

/// A certificate authority, and a server's certificate of it.
fn authority() -> (tempfile::NamedTempFile, rustls::ServerConfig) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = authority.self_signed(&key).expect("an authority");
    let issuer = rcgen::Issuer::new(authority, key);
    let own = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let server = rcgen::CertificateParams::new(names).expect("parameters").signed_by(&own, &issuer).expect("signed");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), certificate.pem()).expect("written");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![server.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(own.serialize_der().into()),
        )
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (file, config)
}

#[tokio::test]
async fn tls_with_a_private_authority_needs_its_file_and_speaks_http2() {
    let (file, config) = authority();
    let mut upstream = Upstream::start_tls(config, echo).await;
    let url = format!("https://{}", upstream.addr);
    let untrusting = TestHost::serving("fetch").with("--allow-outbound", &url).start().await;
    assert_eq!(lines(&untrusting, &[&url]).await, "ErrorCode::TlsCertificateError");
    assert_eq!(counted(&untrusting, "certificate").await, 1);
    let ca = file.path().display().to_string();
    let host = TestHost::serving("fetch").with("--allow-outbound", &url).with("--ca-file", &ca).start().await;
    assert_eq!(lines(&host, &[&url]).await, "200");
    let seen = upstream.next().await;
    assert_eq!(seen.version(), Version::HTTP_2);
    assert!(!seen.headers().contains_key("host"), "HTTP/2 has :authority: {seen:?}");
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_refused_at_start() {
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let setup =
        |file: &str| TestHost::serving("fetch").with("--allow-outbound", "https://a.example").with("--ca-file", file);
    let refused = setup(&empty.path().display().to_string()).try_start().await.expect_err("no certificate");
    assert!(format!("{refused:#}").contains("holds no certificate"), "{refused:#}");
    let refused = setup("/nowhere.pem").try_start().await.expect_err("no file");
    assert!(format!("{refused:#}").contains("cannot read /nowhere.pem"), "{refused:#}");
}

/// One trace from the client to the server that the guest calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_goes_on_to_the_server() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut upstream = Upstream::start(echo).await;
    let mut collector = Upstream::start(|_| Response::default()).await;
    let url = format!("http://{}", upstream.addr);
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let target = format!("{url}/path?secret=q");
    let sent = [("fetch", target.as_str()), ("traceparent", &parent), ("tracestate", "vendor=1")];
    let plain = TestHost::serving("fetch").with("--allow-outbound", &url).start().await;
    ask(Protocol::Http1, plain.addr, "GET", "/", &sent).await;
    let seen = upstream.next().await;
    assert_eq!(seen.headers()["traceparent"], parent, "without spans of its own the host passes the client's on");
    assert_eq!(seen.headers()["tracestate"], "vendor=1");

    let endpoint = format!("http://{}", collector.addr);
    let setup = TestHost::serving("fetch").with("--allow-outbound", &url);
    let mut host = setup.spawn_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    ask(Protocol::Http1, host.addr(), "GET", "/", &sent).await;
    let seen = upstream.next().await;
    let told = seen.headers()["traceparent"].to_str().expect("text").to_owned();
    host.signal(rustix::process::Signal::TERM);
    let mut spans = Vec::new();
    while spans.len() < 3 {
        let export = ExportTraceServiceRequest::decode(collector.next().await.into_body()).expect("protobuf");
        assert!(!format!("{export:?}").contains("secret"), "{export:?}");
        spans.extend(export.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans));
    }
    assert_eq!(host.wait().code(), Some(0));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let of = |kind: i32| spans.iter().find(|span| span.kind == kind).expect("a span");
    let (server, guest, call) = (of(2), of(1), of(3));
    assert_eq!(guest.parent_span_id, server.span_id);
    assert_eq!(call.parent_span_id, guest.span_id);
    assert_eq!(told, format!("00-{TRACE}-{}-01", hex(&call.span_id)), "the server is told of the call's span");
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
}

/// A name that is resolved to an allowed address first, and then to another one, leads nowhere new. The host runs with an
/// /etc/hosts of its own, in a mount namespace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_bound_anew_leads_to_no_address_that_is_not_allowed() {
    let allowed = Upstream::start(|_| {
        let mut response = Response::new(Full::from("the first address"));
        response.headers_mut().insert("connection", "close".parse().expect("a value")); // so that the next one connects anew
        response
    })
    .await;
    let port = allowed.addr.port();
    let other = TcpListener::bind(("127.0.0.2", port)).await.expect("the same port of another address");
    let hosts = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(hosts.path(), "127.0.0.1 rebound.test\n").expect("written");

    let url = format!("http://rebound.test:{port}");
    let setup = TestHost::serving("fetch").with("--allow-outbound", &url).with("--outbound-network", "127.0.0.1/32");
    let host = setup.command();
    let mut command = std::process::Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
    let process = Process::spawn({
        command.arg(hosts.path()).arg(host.get_program()).args(host.get_args());
        command
    });
    let ask = async || ask(Protocol::Http1, process.addr(), "GET", "/", &[("fetch", &url)]).await;
    assert_eq!(ask().await.text(), "the first address");
    std::fs::write(hosts.path(), "127.0.0.2 rebound.test\n").expect("written");
    let refused = ask().await;
    assert_eq!((refused.status.as_u16(), refused.text()), (502, "ErrorCode::DestinationIpProhibited"));
    assert_eq!(allowed.connections.load(Relaxed), 1);
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(1), other.accept()).await;
    assert!(nobody.is_err(), "nobody has connected to the other address");
}
