//! No slot is held for nothing: what a client does not take, or does not say, costs nobody else an answer.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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

/// A head that takes two KiB of a client becomes two hundred in the host. Of those that have come, one at a time is looked at and
/// refused, on each thread; nothing waits in between.
#[test]
fn heads_that_are_refused_do_not_pile_up() {
    const CONNECTIONS: usize = 20;
    const HEADS: u32 = 128;
    let process = TestHost::serving("hello").with("--log", "warn,taffrail=info,access=off").spawn();
    let addr = process.addr();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let block = remembered_block("a", 1900);
        let before = process.peak_memory();
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = Frames::connect(addr, &[]).await;
            client.ask((1..).step_by(2).take(HEADS as usize), &block).await;
            clients.push(client);
        }
        for client in &mut clients {
            for _ in 0..HEADS {
                client.next_of(HEADERS).await.expect("an answer");
            }
        }
        let (grown, piled_up) = (process.peak_memory() - before, CONNECTIONS as u64 * u64::from(HEADS) * (190 << 10));
        assert!(grown < piled_up / 4, "{} MiB", grown >> 20);
        assert_eq!(get(addr, "/ping").await.status, 200);
    });
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_ends_where_none_is_idle() {
    let host = TestHost::serving("echo").with("--max-connections", "2").start().await;
    let mut busy = Vec::new();
    for protocol in BOTH {
        let mut client = Client::connect(protocol, host.addr).await;
        let (mut sender, body) = open_body();
        let mut response = client.open(request_with("POST", host.addr, "/", &[], body)).await.expect("a head");
        sender.send_data("it runs".into()).await.expect("the host reads");
        response.body_mut().frame().await.expect("a frame").expect("no error");
        busy.push((client, sender, response));
    }
    let mut third = TcpStream::connect(host.addr).await.expect("the kernel accepts");
    third.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    // Longer than a connection may be idle before it makes room.
    let early = tokio::time::timeout(Duration::from_millis(1500), third.read_to_string(&mut answer)).await;
    assert!(early.is_err() && answer.is_empty(), "not served yet: {answer}");
    drop(busy.remove(0));
    tokio::time::timeout(PATIENCE, third.read_to_string(&mut answer)).await.expect("in time").expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_client, sender, response) = busy.remove(0);
    drop(sender);
    assert_eq!(whole(response).await.expect("a whole answer").text(), "", "and who was busy is served to its end");
}

#[tokio::test]
async fn where_there_are_as_many_connections_as_may_be_the_longest_idle_makes_room() {
    let host = TestHost::serving("hello").with("--max-connections", "3").start().await;
    let mut silent = TcpStream::connect(host.addr).await.expect("the host accepts");
    let mut first = Client::connect(Protocol::Http1, host.addr).await;
    first.send(request("GET", host.addr, "/ping", &[])).await.expect("an answer");
    let mut second = Client::connect(Protocol::Http2, host.addr).await;
    second.send(request("GET", host.addr, "/ping", &[])).await.expect("an answer");
    for protocol in BOTH {
        assert_eq!(ask(protocol, host.addr, "GET", "/ping", &[]).await.status, 200, "there is room for a newcomer");
    }
    // Who has said nothing goes first; the others were not needed, or were and went in their order.
    let closed = silent.read_to_end(&mut Vec::new()).await;
    assert_eq!(closed.expect("an orderly end"), 0);
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut newcomer = Client::connect(Protocol::Http2, host.addr).await;
        newcomer.send(request("GET", host.addr, "/ping", &[])).await.expect("an answer");
        kept.push(newcomer);
    }
    first.closed().await;
    second.closed().await;
}

/// As many as there may be, of every kind of client that does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_keep_nobody_out() {
    const IDLE: usize = 90;
    let setup = TestHost::serving("hello").with("--max-connections", "30").with("--header-timeout", "1h");
    let host = setup.with("--idle-timeout", "1h").start().await;
    let starts: [&[u8]; 5] =
        [b"", b"PRI", b"GET / HTTP/1.1\r\nHost", PREFACE, b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"];
    let mut idle = Vec::new();
    for count in 0..IDLE {
        let mut stream = TcpStream::connect(host.addr).await.expect("the kernel accepts");
        stream.write_all(starts[count % starts.len()]).await.expect("sent");
        idle.push(stream);
    }
    for protocol in BOTH {
        for _ in 0..20 {
            assert_eq!(ask(protocol, host.addr, "GET", "/ping", &[]).await.status, 200);
        }
    }
}
