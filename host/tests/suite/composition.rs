//! A component that is composed of others is served like any other.

use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions};

use crate::support::*;

/// `outer`, whose handler calls that of `inner`.
fn composed(outer: &str, inner: &str) -> tempfile::NamedTempFile {
    let mut graph = CompositionGraph::new();
    let [socket, plug] = [("test:outer", outer), ("test:inner", inner)].map(|(name, file)| {
        let package = Package::from_file(name, None, component(file), graph.types_mut()).expect("a component");
        graph.register_package(package).expect("registered once")
    });
    wac_graph::plug(&mut graph, vec![plug], socket).expect("the one imports what the other exports");
    wasm_file(&graph.encode(EncodeOptions::default()).expect("a component"))
}

#[tokio::test]
async fn middleware_stands_before_a_component_that_knows_nothing_of_it() {
    let file = composed("gate", "hello");
    let setup = Setup::file(file.path()).with("--config", &format!("auth-tokens={TOKEN}"));
    let host = setup.start().await;
    for protocol in BOTH {
        let closed = ask(protocol, host.addr, "GET", "/app", &[("x-auth-token", TOKEN)]).await;
        assert_eq!((closed.status.as_u16(), closed.text()), (401, "the gate is closed"));
        let refused = ask(protocol, host.addr, "GET", "/app", &[("gate", "open")]).await;
        assert_eq!(refused.status, 403, "the inner component has its own say");
        let open = ask(protocol, host.addr, "GET", "/app", &[("gate", "open"), ("x-auth-token", TOKEN)]).await;
        assert_eq!((open.status.as_u16(), open.text()), (200, r#"{"message":"Hello World"}"#));
    }
}

/// A failure of the inner one is told apart as that of any component.
#[tokio::test]
async fn a_trap_of_the_inner_component_is_the_guests_fault() {
    let file = composed("gate", "fail");
    let host = Setup::file(file.path()).start().await;
    let answer = ask(Protocol::Http1, host.addr, "GET", "/trap", &[("gate", "open")]).await;
    assert_eq!((answer.status.as_u16(), answer.header("taffrail-error")), (500, "guest_trapped"));
}

/// Middleware by itself asks for what nobody has given it yet.
#[tokio::test]
async fn middleware_that_is_not_composed_is_refused_with_what_to_do() {
    let refused = Setup::file(&component("gate")).try_start().await.expect_err("nobody is behind it");
    let refused = format!("{refused:#}");
    let handler = if *IS_0_3 { "wasi:http/handler" } else { "wasi:http/incoming-handler" };
    assert!(refused.contains(handler) && refused.contains("compose it"), "{refused}");
}
