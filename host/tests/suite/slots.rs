//! No slot is held for nothing: what a client does not take costs nobody else an answer.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::metrics::sample;
use crate::support::frames::*;
use crate::support::*;

/// A client whose window is closed, and which has so many answers to take: their heads have come.
async fn untaken(addr: std::net::SocketAddr, answers: u32, target: &str) -> Frames {
    let mut client = Frames::connect(addr, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    client.get((1..).step_by(2).take(answers as usize), target).await;
    for _ in 0..answers {
        let head = client.next_of(HEADERS).await.expect("a head");
        assert_eq!(head.flags & END_STREAM, 0, "the body is to come");
    }
    client
}

/// The same, and their guests are done: one that the engine's clock has stopped just before its end is not, and holds its slot for as
/// long as its client takes nothing.
async fn untaken_and_made(host: &TestHost, answers: u32) -> Frames {
    for _ in 0..10 {
        let client = untaken(host.addr, answers, "/ping").await;
        let made = async { eventually("done", async || metric(host, IN_FLIGHT, "").await == 0.0).await };
        if tokio::time::timeout(Duration::from_secs(1), made).await.is_ok() {
            return client;
        }
    }
    panic!("answers that nobody takes hold slots");
}

const IN_FLIGHT: &str = "taffrail_requests_in_flight ";

async fn metric(host: &TestHost, name: &str, labels: &str) -> f64 {
    sample(get(host.admin, "/metrics").await.text(), name, labels)
}

#[tokio::test]
async fn answers_that_nobody_takes_hold_no_slot_and_end_by_the_write_timeout() {
    const ANSWERS: u32 = 100;
    let timeout = Duration::from_secs(3);
    let setup = TestHost::serving("hello").with("--max-in-flight", "32").with("--write-timeout", "3s");
    let host = setup.with("--idle-timeout", "1h").start().await;
    let mut stalled = untaken_and_made(&host, ANSWERS).await;
    let since = Instant::now(); // at most a moment after the heads
    for protocol in BOTH {
        for _ in 0..10 {
            assert_eq!(ask(protocol, host.addr, "GET", "/ping", &[]).await.status, 200, "there is room for others");
        }
    }
    // One that is taken in time is whole.
    stalled.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100])).await;
    assert_eq!(stalled.next_of(DATA).await.expect("an answer").payload, b"OK");
    assert!(since.elapsed() < timeout, "all this takes less time than they have");
    for _ in 1..ANSWERS {
        stalled.next_of(RST_STREAM).await.expect("a reset of the stream alone");
    }
    let took = since.elapsed();
    assert!(took >= timeout * 3 / 5 && took <= timeout * 6 / 5, "{took:?}");
    let ended = metric(&host, "taffrail_http_requests_total", "reason=\"client_stalled\"").await;
    assert_eq!(ended, f64::from(ANSWERS - 1));
    stalled.get(std::iter::once(2 * ANSWERS + 1), "/ping").await;
    assert!(stalled.next_of(HEADERS).await.is_some(), "the connection goes on");
}

/// However many they are. What they hold is bounded, and who has taken nothing for longest makes room.
#[tokio::test]
async fn more_untaken_answers_than_there_is_room_for_hold_slots_for_a_moment_alone() {
    let setup = TestHost::serving("hello").with("--max-in-flight", "4").with("--write-timeout", "1h");
    let host = setup.with("--deadline", "1h").with("--access-log", "off").start().await;
    let since = Instant::now();
    let mut stalled = Vec::new();
    for _ in 0..4 {
        stalled.push(untaken(host.addr, 100, "/ping").await);
    }
    eventually("others are served", async || get(host.addr, "/ping").await.status == 200).await;
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

/// Over HTTP/1.1 the answer is in the hands of the connection, which ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_and_never_reads_holds_no_slot() {
    let setup = TestHost::serving("hello").with("--max-in-flight", "8").with("--write-timeout", "1s");
    let host = setup.start().await;
    let mut stalled = TcpStream::connect(host.addr).await.expect("the host accepts");
    let request = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let mut beside = crate::hostile::Healthy::start(host.addr, "/ping");
    eventually("the host closes the connection", async || stalled.write_all(&request).await.is_err()).await;
    beside.more(10).await;
    beside.finish().await;
    eventually("no slot is taken", async || metric(&host, IN_FLIGHT, "").await == 0.0).await;
}

/// A drain waits for who reads, and a few seconds for who does not; nothing of what is left is said to be whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_hold_the_drain_for_a_few_seconds_alone() {
    let setup = TestHost::serving("hello").with("--max-in-flight", "32").with("--write-timeout", "1h");
    let mut host =
        setup.with("--deadline", "1h").with("--idle-timeout", "1s").with("--drain-timeout", "1h").start().await;
    let mut stalled = untaken_and_made(&host, 20).await;
    let (since, draining) = (Instant::now(), host.drain());
    stalled.next_of(GOAWAY).await.expect("a goodbye");
    stalled.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100])).await;
    assert_eq!(stalled.next_of(DATA).await.expect("an answer").payload, b"OK", "it is taken after all");
    let drained = tokio::time::timeout(PATIENCE, draining).await.expect("a drain that ends").expect("no panic");
    let took = since.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(8), "{took:?}");
    assert_eq!(drained.cut, 0, "they are told apart from what the host itself cuts");
}
