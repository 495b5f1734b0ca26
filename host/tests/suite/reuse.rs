//! An instance answers more than one request only when the operator says so, and never after it has failed.

use http_body_util::Full;
use hyper::Response;

use crate::metrics::{sample, scrape};
use crate::support::*;
use crate::upstream::Upstream;

/// Instances that were made for requests.
pub async fn made(host: &TestHost) -> f64 {
    sample(&scrape(host).await, "taffrail_guest_instantiate_seconds_count", "")
}

pub async fn retired(host: &TestHost, reason: &str) -> f64 {
    sample(&scrape(host).await, "taffrail_guest_instances_retired_total{", &format!("reason=\"{reason}\""))
}

/// Waits until an instance has ended for this reason.
pub async fn wait_until_retired(host: &TestHost, reason: &str) {
    eventually(&format!("an instance is retired: {reason}"), async || retired(host, reason).await > 0.0).await;
}

#[tokio::test]
async fn state_passes_from_request_to_request_and_ends_with_the_instance() {
    let host = TestHost::serving("state").with("--instance-reuse", "3").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        for count in ["1", "2", "3", "1", "2", "3"] {
            let answer = client.send(request("GET", host.addr, "/", &[])).await.expect("an answer");
            assert_eq!(answer.text(), count, "{protocol:?}");
        }
    }
    assert_eq!((made(&host).await, retired(&host, "requests").await), (4.0, 4.0));
}

#[tokio::test]
async fn requests_at_the_same_time_have_an_instance_each() {
    let host = TestHost::serving("echo").with("--instance-reuse", "100").start().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let (sender, body) = open_body();
        let mut client = Client::connect(Protocol::Http1, host.addr).await;
        let response = client.open(request_with("POST", host.addr, "/", &[], body)).await.expect("a head");
        open.push((sender, response, client));
    }
    assert_eq!(made(&host).await, 3.0, "each has sent its head, and none has ended");
    for (sender, response, _client) in open {
        drop(sender);
        assert_eq!(whole(response).await.expect("an end").body.len(), 0);
    }
    for _ in 0..10 {
        get(host.addr, "/").await;
    }
    assert_eq!(made(&host).await, 3.0);
}

#[tokio::test]
async fn an_instance_that_failed_answers_nobody_any_more() {
    let host = TestHost::serving("fail").with("--instance-reuse", "100").start().await;
    for (round, target) in ["/trap", "/recurse", "/exit"].into_iter().enumerate() {
        assert_eq!(get(host.addr, "/").await.text(), "fine");
        assert_eq!(get(host.addr, target).await.status, 500);
        assert_eq!(retired(&host, "failed").await, round as f64 + 1.0, "{target}");
        assert_eq!(made(&host).await, round as f64 + 1.0, "{target}");
    }
    // An error that it reports itself is an answer like any other.
    for _ in 0..3 {
        assert_eq!(get(host.addr, "/error").await.status, 502);
    }
    assert_eq!((made(&host).await, retired(&host, "failed").await), (4.0, 3.0));
}

#[tokio::test]
async fn an_instance_whose_time_was_over_answers_nobody_any_more() {
    let host = TestHost::serving("spin").with("--instance-reuse", "100").with("--deadline", "200ms").start().await;
    assert_eq!(get(host.addr, "/").await.text(), "fine");
    assert_eq!(get(host.addr, "/spin").await.status, 504);
    assert_eq!(get(host.addr, "/").await.text(), "fine");
    assert_eq!((made(&host).await, retired(&host, "failed").await), (2.0, 1.0));
}

#[tokio::test]
async fn an_instance_whose_client_left_answers_nobody_any_more() {
    let host = TestHost::serving("echo").with("--instance-reuse", "100").with("--max-in-flight", "1").start().await;
    let (_sender, body) = open_body();
    let mut client = Client::connect(Protocol::Http1, host.addr).await;
    let response = client.open(request_with("POST", host.addr, "/", &[], body)).await.expect("a head");
    drop((response, client));
    eventually("the slot is free", async || get(host.addr, "/").await.status == 200).await;
    assert_eq!(made(&host).await, 2.0);
}

#[tokio::test]
async fn an_instance_that_has_grown_too_large_ends() {
    let setup = TestHost::serving("state").with("--instance-reuse", "100").with("--instance-memory", "4MiB");
    let host = setup.start().await;
    for (target, count) in [("/", "1"), ("/grow", "2"), ("/", "1"), ("/", "2")] {
        assert_eq!(get(host.addr, target).await.text(), count);
    }
    assert_eq!((made(&host).await, retired(&host, "memory").await), (2.0, 1.0));
}

#[tokio::test]
async fn an_instance_that_nobody_needs_ends() {
    let host = TestHost::serving("state").with("--instance-reuse", "100").with("--instance-idle", "10ms").start().await;
    assert_eq!(get(host.addr, "/").await.text(), "1");
    wait_until_retired(&host, "idle").await;
    assert_eq!(get(host.addr, "/").await.text(), "1");
}

/// What is printed belongs to the request that printed it, a last line without an end too.
#[test]
fn a_line_belongs_to_the_request_that_printed_it() {
    let process = TestHost::serving("print").with("--instance-reuse", "100").spawn();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ids: Vec<String> = (0..3)
        .map(|_| {
            let answer = runtime.block_on(get(process.addr(), "/"));
            answer.header("x-request-id").to_owned()
        })
        .collect();
    for id in &ids {
        process.wait_for_line(&format!("\"without an end\",\"stream\":\"stderr\",\"request_id\":\"{id}\""));
        process.wait_for_line(&format!("\"one line in pieces\",\"stream\":\"stderr\",\"request_id\":\"{id}\""));
    }
}

/// The limit of outbound calls of one request is not used up by those before it.
#[tokio::test]
async fn every_request_has_its_own_outbound_calls() {
    let upstream = Upstream::start(|_| Response::new(Full::from("here"))).await;
    let url = format!("http://{}", upstream.addr);
    let setup = TestHost::serving("fetch").with("--instance-reuse", "100").with("--max-outbound-per-request", "1");
    let host = setup.with("--allow-outbound", &url).start().await;
    for _ in 0..5 {
        let answer = ask(Protocol::Http1, host.addr, "GET", "/", &[("fetch", &url)]).await;
        assert_eq!(answer.text(), "here");
    }
    assert_eq!(made(&host).await, 1.0);
}
