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
async fn the_state_of_one_request_is_never_visible_to_the_next() {
    let host = TestHost::serving("state").start().await;
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
    for (interface, versions) in taffrail::guest::OFFERED {
        if *interface == "wasi:http/types" {
            continue; // every component here imports it already
        }
        let version = versions.replace(".x", ".0");
        let file = wat_component(&format!(r#"(import "{interface}@{version}" (instance))"#));
        let started = Setup::file(file.path()).try_start().await;
        assert!(started.is_ok(), "{interface}@{version}: {:#}", started.unwrap_err());
    }
}

/// A component in text form that exports the handler, with something before it.
pub fn wat_component(prelude: &str) -> tempfile::NamedTempFile {
    let text = format!(
        r#"(component {prelude}
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core module $module (func (export "handle") (param i32 i32)))
            (core instance $instance (instantiate $module))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $instance "handle")))
            (component $handler
                (import "request" (type $request (sub resource)))
                (import "out" (type $out (sub resource)))
                (import "handle" (func $handle (param "request" (own $request)) (param "response-out" (own $out))))
                (export $request2 "incoming-request" (type $request))
                (export $out2 "response-outparam" (type $out))
                (export "handle" (func $handle)
                    (func (param "request" (own $request2)) (param "response-out" (own $out2)))))
            (instance $exported (instantiate $handler
                (with "request" (type $request)) (with "out" (type $out)) (with "handle" (func $handle))))
            (export "wasi:http/incoming-handler@0.2.0" (instance $exported)))"#
    );
    wasm_file(&wat::parse_str(text).expect("a component"))
}

/// A file with these bytes.
pub fn wasm_file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".wasm").tempfile().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    file
}
