//! A guest that fails costs its own request alone, and the client learns nothing of its insides.

use http_body_util::BodyExt;

use crate::support::*;

#[tokio::test]
async fn a_guest_that_fails_before_its_head_gets_a_clear_answer_and_the_next_request_works() {
    let host = TestHost::serving("fail").start().await;
    for protocol in BOTH {
        for (target, status, reason) in [
            ("/trap", 500, "guest_trapped"),
            ("/recurse", 500, "guest_stack_overflow"),
            ("/exit", 500, "guest_exited"),
            ("/silent", 502, "guest_no_response"),
            ("/leak", 502, "guest_no_response"),
            ("/error", 502, "guest_error"),
        ] {
            let mut client = Client::connect(protocol, host.addr).await;
            let answer = client.send(request("GET", host.addr, target, &[])).await.expect("an answer");
            let row = format!("{protocol:?} {target}: {answer:?}");
            assert_eq!(answer.status, status, "{row}");
            assert_eq!(answer.header("taffrail-error"), reason, "{row}");
            assert_eq!(answer.header("content-type"), "application/problem+json", "{row}");
            let problem = answer.json();
            assert_eq!(problem["status"], status, "{row}");
            assert_eq!(problem["reason"], reason, "{row}");
            assert_eq!(problem["request_id"], answer.header("x-request-id"), "{row}");
            for secret in ["secret", ".rs", "wasm", "0x", "panick"] {
                assert!(!answer.text().contains(secret), "{row}");
            }
            let next = client.send(request("GET", host.addr, "/", &[])).await.expect("an answer");
            assert_eq!(next.text(), "fine", "{row}");
        }
    }
}

#[tokio::test]
async fn a_guest_that_fails_after_its_head_is_cut_so_that_the_client_sees_it() {
    let host = TestHost::serving("fail").start().await;
    for protocol in BOTH {
        for target in ["/late-trap", "/late-drop"] {
            let mut client = Client::connect(protocol, host.addr).await;
            let (sender, body) = open_body();
            let mut response = client.open(request_with("POST", host.addr, target, &[], body)).await.expect("a head");
            assert_eq!(response.status(), 200);
            let first = response.body_mut().frame().await.expect("a frame").expect("no error");
            assert_eq!(first.into_data().expect("data"), "so far so good");
            drop(sender); // the guest goes on, and fails
            let end = response.body_mut().frame().await;
            assert!(matches!(&end, Some(Err(error)) if is_cut(error)), "{protocol:?} {target}: {end:?}");
            assert_eq!(get(host.addr, "/").await.text(), "fine");
        }
    }
}

#[test]
fn the_cause_with_its_wasm_backtrace_is_in_the_log_alone() {
    let process = TestHost::serving("fail").spawn();
    let addr = process.addr();
    let answer = tokio::runtime::Runtime::new().unwrap().block_on(get(addr, "/trap"));
    assert_eq!(answer.status, 500);
    let line: serde_json::Value = serde_json::from_str(&process.wait_for_line("guest_trapped")).expect("a JSON line");
    assert_eq!(line["request_id"], answer.header("x-request-id"));
    let detail = line["detail"].as_str().expect("a cause");
    assert!(detail.contains("wasm backtrace") && detail.contains("unreachable"), "{detail}");
    // The panic's own text came through the guest's stderr, with the same id.
    let printed: serde_json::Value = serde_json::from_str(&process.wait_for_line("secret text")).expect("a JSON line");
    assert_eq!(printed["request_id"], answer.header("x-request-id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_stops_its_guest() {
    let host = TestHost::serving("spin").with("--max-in-flight", "1").start().await;
    for protocol in BOTH {
        let asked = tokio::spawn(async move { insist(protocol, host.addr, "/spin").await });
        // The guest runs.
        eventually("the one slot is taken", async || get(host.addr, "/").await.status == 503).await;
        asked.abort();
        // It does not.
        eventually("the slot is free again", async || get(host.addr, "/").await.status == 200).await;
    }
}
