//! The end loses nothing: what is in flight is finished, and what is cut is counted.

use http_body_util::BodyExt;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keep_alive_client_and_a_slow_response_complete_during_the_drain() {
    for protocol in BOTH {
        let mut host = TestHost::serving("echo").start().await;
        let mut idle = Client::connect(protocol, host.addr).await;
        idle.send(request("GET", host.addr, "/", &[])).await.expect("an answer");
        let mut slow = Client::connect(protocol, host.addr).await;
        let (mut sender, body) = open_body();
        let mut response = slow.open(request_with("POST", host.addr, "/", &[], body)).await.expect("a head");
        sender.send_data("before".into()).await.expect("the host reads");
        response.body_mut().frame().await.expect("a frame").expect("no error");

        let draining = host.drain();
        idle.closed().await;
        assert_eq!(get(host.admin, "/readyz").await.text(), "draining: the process was asked to end\n");
        assert!(tokio::net::TcpStream::connect(host.addr).await.is_err(), "new connections are refused");
        sender.send_data("after".into()).await.expect("the host still reads");
        drop(sender);
        assert_eq!(whole(response).await.expect("a whole answer").text(), "after");
        assert_eq!(draining.await.expect("drained").cut, 0, "{protocol:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_the_delay_everybody_is_served_and_told_to_go_elsewhere() {
    let mut host = TestHost::serving("hello").with("--drain-delay", "3s").start().await;
    let mut kept = Client::connect(Protocol::Http1, host.addr).await;
    kept.send(request("GET", host.addr, "/ping", &[])).await.expect("an answer");
    let draining = host.drain();
    eventually("it is not ready", async || get(host.admin, "/readyz").await.status == 503).await;
    let answer = kept.send(request("GET", host.addr, "/ping", &[])).await.expect("an answer");
    assert_eq!((answer.text(), answer.header("connection")), ("OK", "close"));
    for protocol in BOTH {
        let answer = ask(protocol, host.addr, "GET", "/ping", &[]).await;
        assert_eq!(answer.text(), "OK", "{protocol:?}");
    }
    let health = get(host.addr, "/health").await;
    assert_eq!((health.status.as_u16(), &health.json()["status"]), (503, &"failure".into()));
    assert_eq!(draining.await.expect("drained").cut, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_finish_in_time_is_cut_and_counted() {
    let mut host = TestHost::serving("echo").with("--drain-timeout", "100ms").start().await;
    let mut open = Vec::new();
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        let (sender, body) = open_body();
        let response = client.open(request_with("POST", host.addr, "/", &[], body)).await.expect("a head");
        open.push((client, sender, response));
    }
    assert_eq!(host.drain().await.expect("drained").cut, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_works_on_after_its_answer_is_waited_for() {
    let mut host = TestHost::serving("late").with("--max-in-flight", "1").start().await;
    let mut client = Client::connect(Protocol::Http1, host.addr).await;
    let (sender, body) = open_body();
    let mut response = client.open(request_with("POST", host.addr, "/", &[], body)).await.expect("a head");
    let frame = response.body_mut().frame().await.expect("a frame").expect("no error");
    assert_eq!(frame.into_data().expect("data"), "answered");
    assert!(response.body_mut().frame().await.is_none(), "the answer is complete");
    assert_eq!(get(host.addr, "/").await.status, 503, "but the guest still counts");
    let draining = host.drain();
    drop(sender);
    assert_eq!(draining.await.expect("drained").cut, 0);
}
