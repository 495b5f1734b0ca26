//! A guest sees nothing of the machine, and nothing of another request.

use crate::support::*;

#[tokio::test]
async fn nothing_of_the_machine_is_behind_the_interfaces() {
    let host = TestHost::serving("sandbox").start().await;
    let answer = get(host.addr, "/").await;
    let expected = [
        "environment: 0",
        "arguments: 0",
        "root: false",
        "passwd: false",
        "tcp: permission denied",
        "listen: false",
        "udp: false",
        "dns: false",
        "outbound: Some(Ok(Err(ErrorCode::HttpRequestDenied)))",
    ];
    assert_eq!(answer.text().lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn nothing_of_the_machine_is_behind_the_interfaces_of_wasi_0_3() {
    let host = Setup::compiled(&component03("sandbox")).start().await;
    let answer = get(host.addr, "/0.3").await;
    let expected = [
        "environment: 0",
        "arguments: 0",
        "directories: 0",
        "no tcp: ErrorCode::AccessDenied",
        "no udp: ErrorCode::AccessDenied",
        "dns: Err(ErrorCode::PermanentResolverFailure)", // Wasmtime's, where nobody was asked; a failed lookup is unresolvable
    ];
    assert_eq!(answer.text().lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn the_environment_is_what_the_operator_says() {
    let host = TestHost::serving("sandbox").with("--env", "A=1").with("--env", "B=two=2").start().await;
    assert!(get(host.addr, "/").await.text().starts_with("environment: 2\n"));
}

#[tokio::test]
async fn the_state_of_one_request_is_never_visible_to_the_next() {
    let host = TestHost::serving("state").with("--instance-reuse", "1").start().await;
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        for _ in 0..50 {
            let answer = client.send(request("GET", host.addr, "/", &[])).await.expect("an answer");
            assert_eq!(answer.text(), "1", "{protocol:?}");
        }
    }
}

/// Each import by itself, in a component made for it: what the list says links, and nothing else does.
#[tokio::test]
async fn every_interface_that_the_host_lists_links() {
    for (interface, versions) in taffrail::internals::OFFERED {
        if *interface == "wasi:http/types" {
            continue; // every component here imports it already
        }
        let version = versions.replace(".x", ".0");
        let file = wat_component(&format!(r#"(import "{interface}@{version}" (instance))"#));
        let started = Setup::file(file.path()).try_start().await;
        assert!(started.is_ok(), "{interface}@{version}: {:#}", started.unwrap_err());
    }
}
