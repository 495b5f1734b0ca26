//! Components of other languages and toolchains are served like our own. `host/tests/foreign/build` makes them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};

use crate::support::*;

const MIB: u64 = 1024 * 1024;

fn foreign(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/foreign/{name}.wasm"));
    assert!(file.is_file(), "{} is missing: host/tests/foreign/build makes it", file.display());
    file
}

/// What each of them does, in a stream where its language has one.
async fn greets_and_echoes(addr: SocketAddr, language: &str) {
    let posted: Bytes = (0..MIB).map(|at| (at % 251) as u8).collect();
    for protocol in BOTH {
        let greeting = ask(protocol, addr, "GET", "/", &[("x-name", "World")]).await;
        let expected = format!("Hello World, here is {language}");
        assert_eq!((greeting.status.as_u16(), greeting.text()), (200, expected.as_str()), "{protocol:?}");

        let mut client = Client::connect(protocol, addr).await;
        let body = Full::new(posted.clone()).boxed_unsync();
        let echo = client.send(request_with("POST", addr, "/", &[], body)).await.expect("an answer");
        assert_eq!(echo.status, 200, "{language} {protocol:?}");
        assert!(echo.body == posted, "{language} {protocol:?}: {} bytes came back, not as they went", echo.body.len());
    }
}

#[tokio::test]
async fn a_component_that_was_written_by_hand_is_served() {
    let bytes = wat::parse_str(include_str!("../foreign/by_hand.wat")).expect("a component");
    let host = Setup::file(wasm_file(&bytes).path()).start().await;
    for protocol in BOTH {
        let answer = ask(protocol, host.addr, "GET", "/anything", &[]).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "written by hand"), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_component_with_bindings_of_an_older_wit_bindgen_is_served() {
    let host = Setup::file(&foreign("rust")).start().await;
    greets_and_echoes(host.addr, "an older Rust").await;
}

/// What it prints comes through an adapter from WASI 0.1.
#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_c_is_served_and_its_output_logged() {
    let process = Setup::file(&foreign("c")).spawn();
    greets_and_echoes(process.addr(), "C").await;
    let line = process.wait_for_line("\"greeted\"");
    assert!(line.contains(r#""stream":"stderr""#) && line.contains("request_id"), "{line}");
}

#[tokio::test]
async fn a_component_of_javascript_is_served() {
    let host = Setup::compiled(&foreign("javascript")).start().await;
    greets_and_echoes(host.addr, "JavaScript").await;
}

/// Over 20 MB, 14 modules, more than 64 MiB of memory from its first instruction: nothing has to be raised for it, and while it
/// is compiled the probes say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_component_of_python_is_served_and_its_start_is_honest() {
    let process = Process::spawn(Setup::file(&foreign("python")).command());
    let json = |line: String| serde_json::from_str::<serde_json::Value>(&line).expect("a JSON line");
    let admin = json(process.wait_for_line("\"starting\""))["admin"].as_str().expect("an address").parse().unwrap();

    let first = get(admin, "/readyz").await;
    assert_eq!(first.status, 503);
    assert!(first.text().starts_with("starting: "), "{}", first.text());
    eventually("it is compiled", async || {
        assert_eq!(get(admin, "/livez").await.status, 200); // who is busy is not dead
        tokio::time::sleep(Duration::from_millis(50)).await;
        get(admin, "/readyz").await.status == 200
    })
    .await;
    let loaded = json(process.wait_for_line("\"loaded the component\""));
    assert!(loaded["size"].as_u64() > Some(20_000_000), "{loaded}");
    process.wait_for_line("\"compiling the component\"");
    let ready = json(process.wait_for_line("\"ready\""));
    // In this process the compiler would leave 507 MB behind; what is left is its output, twice: as it came, and loaded.
    assert!(process.memory() < 320 * MIB, "{} bytes are resident", process.memory());
    assert!(ready["initial_memory"].as_u64() > Some(64 * MIB), "{ready}");

    let addr = process.addr();
    greets_and_echoes(addr, "Python").await;
    let at_once: Vec<_> = (0..32).map(|_| tokio::spawn(get(addr, "/"))).collect();
    for asked in at_once {
        assert_eq!(asked.await.expect("an answer").status, 200);
    }
}

/// What the kernel kills is the compiler, not the host; and the host says what to do.
#[test]
fn a_component_that_is_too_large_to_be_compiled_here_is_refused_with_what_to_do() {
    let Some(group) = MemoryGroup::of(256 * MIB) else { return };
    let mut process = Process::spawn(group.run(&Setup::file(&foreign("python")).command()));
    assert_eq!(process.wait().code(), Some(2));
    let log = process.whole_log();
    assert!(log.contains("compiling may need more memory than there is: run `taffrail compile`"), "{log}");
    assert!(log.contains("the compiler ended with signal: 9") && log.contains("--allow-precompiled"), "{log}");
}
