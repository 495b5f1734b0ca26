//! An instance of WASI 0.3 answers several requests at the same time only when the operator says so.

use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::reuse::{made, retired, wait_until_retired};
use crate::support::*;

type Sender = http_body_util::channel::Sender<bytes::Bytes, std::convert::Infallible>;

fn sharing(guest: &str) -> Setup {
    Setup::compiled(&component03(guest)).with("--instance-reuse", "100").with("--instance-concurrency", "10")
}

/// A request whose body is open and whose response has begun.
async fn begin(host: &TestHost, target: &str) -> (Sender, Response<Incoming>) {
    let (sender, body) = open_body();
    let mut client = Client::connect(Protocol::Http2, host.addr).await;
    let response = client.open(request_with("POST", host.addr, target, &[], body)).await.expect("a head");
    (sender, response)
}

/// The runtime of this test has one thread, so one instance is enough until it is full.
#[tokio::test]
async fn an_instance_answers_several_at_the_same_time_and_no_more_than_it_may() {
    let host = sharing("echo").start().await;
    let mut open = Vec::new();
    for count in 1..=11 {
        open.push(begin(&host, "/").await);
        assert_eq!(made(&host).await, if count <= 10 { 1.0 } else { 2.0 });
    }
    for (number, (mut sender, mut response)) in open.into_iter().enumerate() {
        sender.send_data(format!("{number}").into()).await.expect("the host reads");
        let frame = response.body_mut().frame().await.expect("a frame").expect("no error");
        assert_eq!(frame.into_data().expect("data"), format!("{number}"), "each gets its own");
        drop(sender);
        assert!(whole(response).await.expect("an end").body.is_empty());
    }
}

#[tokio::test]
async fn an_instance_ends_after_its_requests() {
    let setup =
        Setup::compiled(&component03("state")).with("--instance-reuse", "3").with("--instance-concurrency", "2");
    let host = setup.start().await;
    for count in ["1", "2", "3", "1", "2", "3"] {
        assert_eq!(get(host.addr, "/").await.text(), count);
    }
    assert_eq!((made(&host).await, retired(&host, "requests").await), (2.0, 2.0));
}

/// What fails in one of them ends the instance, and nobody else's.
#[tokio::test]
async fn a_failure_ends_those_that_share_the_instance() {
    let host = sharing("fail").start().await;
    let (_sender, mut response) = begin(&host, "/late-trap").await;
    let first = response.body_mut().frame().await.expect("a frame").expect("no error");
    assert_eq!(first.into_data().expect("data"), "so far so good");
    let trapped = get(host.addr, "/trap").await;
    assert_eq!((trapped.status.as_u16(), trapped.header("taffrail-error")), (500, "guest_trapped"));
    let end = response.body_mut().frame().await;
    assert!(matches!(&end, Some(Err(error)) if is_cut(error)), "cut, so that its client sees it: {end:?}");
    assert_eq!(get(host.addr, "/").await.text(), "fine");
    assert_eq!((made(&host).await, retired(&host, "failed").await), (2.0, 1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_out_of_time_is_told_so_and_its_instance_takes_no_others() {
    let host = sharing("spin").with("--deadline", "300ms").start().await;
    assert_eq!(get(host.addr, "/").await.text(), "fine");
    let late = get(host.addr, "/spin").await;
    assert_eq!((late.status.as_u16(), late.header("taffrail-error")), (504, "guest_deadline"));
    assert_eq!(get(host.addr, "/").await.text(), "fine");
    assert_eq!((made(&host).await, retired(&host, "failed").await), (2.0, 1.0));
}

/// A request cannot be stopped by itself, so its instance goes; but not before the others have their answers.
#[tokio::test]
async fn a_client_that_leaves_takes_nothing_from_the_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let host = sharing("fetch").with("--allow-outbound", &url).start().await;
    let mut asked = Vec::new();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let url = url.clone();
        let ask = async move { ask(Protocol::Http1, host.addr, "GET", "/", &[("fetch", &url)]).await };
        asked.push(tokio::spawn(ask));
        servers.push(listener.accept().await.expect("the guest calls").0);
    }
    assert_eq!(made(&host).await, 1.0);
    asked.remove(0).abort();
    eventually("the client is known to have left, and another instance is made", async || {
        let refused = ask(Protocol::Http1, host.addr, "GET", "/lines", &[("fetch", "http://192.0.2.1")]).await;
        assert_eq!(refused.text(), "ErrorCode::HttpRequestDenied");
        made(&host).await > 1.0
    })
    .await;
    assert_eq!(retired(&host, "failed").await, 0.0);
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nstill here";
    servers[1].write_all(answer).await.expect("the guest is there");
    assert_eq!(asked.remove(0).await.expect("no panic").text(), "still here");
    wait_until_retired(&host, "failed").await;
}

#[tokio::test]
async fn an_instance_that_nobody_needs_ends() {
    let host = sharing("state").with("--instance-idle", "10ms").start().await;
    assert_eq!(get(host.addr, "/").await.text(), "1");
    wait_until_retired(&host, "idle").await;
    assert_eq!(get(host.addr, "/").await.text(), "1");
}

#[tokio::test]
async fn the_drain_waits_for_all_of_them() {
    let mut host = sharing("echo").start().await;
    let open = [begin(&host, "/").await, begin(&host, "/").await];
    let draining = host.drain();
    for (mut sender, response) in open {
        sender.send_data("the rest".into()).await.expect("the host reads");
        drop(sender);
        assert_eq!(whole(response).await.expect("an end").body, "the rest");
    }
    assert_eq!(draining.await.expect("drained").cut, 0);
}

#[tokio::test]
async fn a_component_of_0_2_is_refused_with_what_to_do() {
    let hand_written = wat_component("");
    let setup = Setup::file(hand_written.path()).with("--instance-reuse", "9").with("--instance-concurrency", "9");
    let refused = format!("{:#}", setup.try_start().await.expect_err("it answers one at a time"));
    assert!(refused.contains("is a component of WASI 0.2") && refused.contains("leave --instance-concurrency out"));
    let faults = Setup::file(hand_written.path()).with("--instance-concurrency", "2").config().expect_err("too many");
    assert!(faults.to_string().contains("is more than --instance-reuse"), "{faults}");
}
