//! Health that means something, before, during and after.

use std::time::{Duration, Instant};

use crate::support::*;

#[tokio::test]
async fn the_admin_endpoints_say_what_is_served() {
    let host = TestHost::serving("hello").start().await;
    assert_eq!(get(host.admin, "/livez").await.status, 200);
    assert_eq!(get(host.admin, "/readyz").await.text(), "ready\n");
    let version = get(host.admin, "/version").await.json();
    assert_eq!(version["host"], env!("CARGO_PKG_VERSION"));
    let file = std::fs::read(component("hello")).unwrap();
    assert_eq!(version["component"]["size"], file.len());
    let world = if *IS_0_3 { "wasi:http/service@0.3.0" } else { "wasi:http/proxy@0.2.12" };
    assert_eq!(version["component"]["world"], world);
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&file);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(version["component"]["digest"], format!("sha256:{digest}"));
    let imports = version["component"]["imports"].as_array().expect("a list");
    assert!(imports.iter().any(|import| import == "wasi:config/store@0.2.0-rc.1"), "{imports:?}");
    assert_eq!(get(host.admin, "/nothing").await.status, 404);
    let refused = ask(Protocol::Http1, host.admin, "POST", "/readyz", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn the_health_path_on_the_traffic_port_answers_as_the_old_service_did() {
    let host = TestHost::serving("hello").start().await;
    for protocol in BOTH {
        let answer = ask(protocol, host.addr, "GET", "/health", &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
        let report = answer.json();
        assert_eq!(report["application"], component("hello").file_stem().expect("a name").to_str().expect("text"));
        assert_eq!(report["status"], "success");
        assert!(!report["hostname"].as_str().expect("a name").is_empty());
        assert!(report["timestamp"].as_f64().expect("seconds") > 1.7e9);
        let checks = report["result"].as_array().expect("a list");
        assert!(checks.len() == 4 && checks.iter().all(|check| check["passed"] == true), "{checks:?}");
        let head = ask(protocol, host.addr, "HEAD", "/health?probe", &[]).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    }
}

#[tokio::test]
async fn the_health_path_can_be_moved_named_and_turned_off() {
    let moved = TestHost::serving("hello").with("--health-path", "/up").with("--application", "greeter").start().await;
    assert_eq!(get(moved.addr, "/up").await.json()["application"], "greeter");
    assert_eq!(get(moved.addr, "/health").await.json()["error"], "Not found");
    let off = TestHost::serving("hello").with("--health-path", "").start().await;
    assert_eq!(get(off.addr, "/health").await.json()["error"], "Not found");
}

/// A component that takes its time to compile is not ready, and says why; the traffic port is not bound.
#[tokio::test(flavor = "multi_thread")]
async fn not_ready_while_the_component_is_compiled() {
    let fifo = tempfile::tempdir().unwrap();
    let path = fifo.path().join("slow.wasm");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).expect("a pipe");
    let process = Process::spawn(Setup::file(&path).command());
    let line: serde_json::Value = serde_json::from_str(&process.wait_for_line("starting")).expect("a JSON line");
    let admin = line["admin"].as_str().and_then(|address| address.parse().ok()).expect("an address");
    let waiting = get(admin, "/readyz").await;
    assert_eq!((waiting.status.as_u16(), waiting.text()), (503, "starting: compiling the component\n"));
    assert_eq!(get(admin, "/livez").await.status, 200);
    assert_eq!(get(admin, "/version").await.status, 503);
    std::fs::write(&path, std::fs::read(component("hello")).unwrap()).expect("the host reads the pipe");
    process.wait_for_line("\"ready\"");
    assert_eq!(get(admin, "/readyz").await.status, 200);
    assert_eq!(get(process.addr(), "/health").await.status, 200);
}

/// The admin port ends a connection after five seconds; a probe that waited for that would be late.
const LATE: std::time::Duration = std::time::Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_whoever_holds_connections_to_the_admin_port() {
    let host = TestHost::serving("hello").start().await;
    let silent = String::new();
    let half = "GET /livez HT".to_owned();
    let unread = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    let large = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(60_000));
    let idle = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_owned();
    let mut held = Vec::new();
    for probe in 0..100 {
        for hostile in [&silent, &half, &unread, &large, &idle] {
            let stream = tokio::net::TcpStream::connect(host.admin).await.expect("the host accepts");
            stream.writable().await.expect("a connection");
            let _ = stream.try_write(hostile.as_bytes()); // it may be ended by then
            held.push(stream);
        }
        let asked = std::time::Instant::now();
        assert_eq!(get(host.admin, "/livez").await.status, 200);
        assert!(asked.elapsed() < LATE, "probe {probe} was answered after {:?}", asked.elapsed());
    }
    assert_eq!(held.len(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_however_busy_the_guests_are() {
    let host = TestHost::serving("spin").with("--max-in-flight", "8").start().await;
    let busy: Vec<_> =
        (0..8).map(|_| tokio::spawn(async move { insist(Protocol::Http1, host.addr, "/spin").await })).collect();
    eventually("every slot is taken", async || get(host.addr, "/").await.status == 503).await;
    for _ in 0..20 {
        assert_eq!(get(host.admin, "/livez").await.status, 200);
        assert_eq!(get(host.admin, "/readyz").await.status, 200);
        assert_eq!(get(host.addr, "/health").await.status, 200);
    }
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A guest cannot bring that about, so a task of this test's own does it on the host's runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_stands_still_is_not_alive_until_it_moves() {
    let host = TestHost::serving("hello").start().await;
    let (go_on, stand_still) = std::sync::mpsc::channel::<()>();
    assert_eq!(get(host.admin, "/livez").await.text(), "alive\n");
    let still = tokio::spawn(async move { stand_still.recv() });
    eventually("it is not alive", async || get(host.admin, "/livez").await.status == 503).await;
    assert_eq!(get(host.admin, "/livez").await.text(), "not alive: a thread that serves stands still\n");
    assert_eq!(get(host.admin, "/readyz").await.status, 200, "the others serve");
    go_on.send(()).expect("it waits for this");
    still.await.expect("no panic").expect("sent");
    eventually("it is alive again", async || get(host.admin, "/livez").await.status == 200).await;
}

/// With fewer threads than guests that compute, for longer than a thread may stand still.
#[test]
fn a_host_whose_threads_are_all_busy_is_alive() {
    const BUSY: Duration = Duration::from_secs(15);
    let setup = TestHost::serving("spin").with("--deadline", "15s");
    let process = setup.spawn_with(&[("TOKIO_WORKER_THREADS", "2")]);
    let (addr, admin) = (process.addr(), process.admin());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut spinning = tokio::task::JoinSet::new();
        for _ in 0..8 {
            spinning.spawn(ask_for(addr, "/spin"));
        }
        let since = Instant::now();
        let mut asked = 0;
        eventually("all of them are over", async || {
            assert_eq!(get(admin, "/livez").await.text(), "alive\n");
            asked += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            spinning.try_join_next();
            spinning.is_empty()
        })
        .await;
        assert!(since.elapsed() >= BUSY && asked > 50, "{asked} times in {:?}", since.elapsed());
    });
}

async fn ask_for(addr: std::net::SocketAddr, target: &'static str) {
    assert_eq!(ask(Protocol::Http1, addr, "GET", target, &[]).await.status, 504);
}
