//! A broken component or a hostile client costs its own requests alone: healthy traffic beside it is always answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::metrics::sample;
use crate::support::*;

/// Sends healthy requests one after the other on several connections, until told to stop. Every one must be answered.
pub struct Healthy {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    clients: JoinSet<()>,
}

impl Healthy {
    pub fn start(addr: std::net::SocketAddr, target: &'static str) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let mut clients = JoinSet::new();
        for protocol in [Protocol::Http1, Protocol::Http1, Protocol::Http2] {
            let (stop, answered) = (stop.clone(), answered.clone());
            clients.spawn(async move {
                let mut client = Client::connect(protocol, addr).await;
                while !stop.load(Relaxed) {
                    let answer = client.send(request("GET", addr, target, &[]));
                    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("an answer");
                    assert_eq!(answer.status, 200, "{protocol:?}: {answer:?}: {}", why(&answer));
                    answered.fetch_add(1, Relaxed);
                }
            });
        }
        Self { stop, answered, clients }
    }

    pub fn answered(&self) -> u32 {
        self.answered.load(Relaxed)
    }

    /// Waits for so many answers more: proof that the healthy are served now.
    pub async fn more(&mut self, count: u32) {
        let until = self.answered() + count;
        let served = async {
            while self.answered() < until {
                assert!(self.clients.try_join_next().is_none(), "a healthy client ended");
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, served).await.expect("the healthy are served");
    }

    pub async fn finish(mut self) -> u32 {
        self.stop.store(true, Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client.expect("every healthy request was answered");
        }
        self.answered()
    }
}

/// How a request ends for its client: the status and the reason, or a cut.
type End = (u16, String);

const CUT: (u16, &str) = (0, "cut");

async fn end(protocol: Protocol, addr: std::net::SocketAddr, target: &str) -> End {
    let asked = async {
        let mut client = Client::connect(protocol, addr).await;
        client.send(request("GET", addr, target, &[])).await
    };
    match tokio::time::timeout(PATIENCE, asked).await.expect("an end in time") {
        Ok(answer) => (answer.status.as_u16(), answer.header("taffrail-error").to_owned()),
        Err(error) if is_cut(&error) => (CUT.0, CUT.1.to_owned()),
        Err(error) => panic!("{protocol:?} {target}: {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_broken_requests_at_a_time_beside_healthy_ones() {
    two_hundred_at_a_time(Protocol::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_broken_requests_over_http2_beside_healthy_ones() {
    two_hundred_at_a_time(Protocol::Http2).await;
}

async fn two_hundred_at_a_time(protocol: Protocol) {
    const AT_ONCE: usize = 200;
    const DEADLINE: (u16, &str) = (504, "guest_deadline");
    for (guest, target, ends) in [
        ("spin", "/spin", &[DEADLINE][..]),
        ("sleep", "/sleep", &[DEADLINE]),
        ("hog", "/grow", &[(500, "guest_out_of_memory")]),
        ("flood", "/flood", &[CUT]),
        ("fail", "/recurse", &[(500, "guest_stack_overflow")]),
        ("fail", "/trap", &[(500, "guest_trapped")]),
        ("fail", "/silent", &[(502, "guest_no_response")]),
        ("fail", "/exit", &[(500, "guest_exited")]),
        ("liar", "/short", &[CUT, (502, "guest_body_broken")]),
        ("liar", "/large-header", &[(502, "guest_header_too_large")]),
        ("greedy", "/handles", &[(500, "guest_too_many_handles")]),
        ("late", "/", &[(200, "")]),
    ] {
        let setup = TestHost::serving(guest).with("--deadline", "2s").with("--guest-memory", "8MiB");
        // The clients share their threads with two hundred guests: they may be late with their first request.
        let setup = setup.with("--header-timeout", "1m");
        let host = setup.with("--access-log", "errors").start().await;
        let mut beside = Healthy::start(host.addr, "/");
        let mut broken = JoinSet::new();
        for _ in 0..AT_ONCE {
            broken.spawn(async move { end(protocol, host.addr, target).await });
        }
        beside.more(20).await;
        let mut seen = BTreeMap::<End, usize>::new();
        while let Some(ended) = broken.join_next().await {
            *seen.entry(ended.expect("no panic")).or_default() += 1;
        }
        let is_one_of = |ends: &[(u16, &str)], (status, reason): &End| ends.contains(&(*status, reason));
        let row = format!("{protocol:?} {guest}{target}: {seen:?}");
        assert!(seen.keys().any(|end| is_one_of(ends, end)), "{row}");
        // Where there are so many, the time of those that compute may be over first.
        let is_right = |end: &End| is_one_of(ends, end) || guest != "late" && is_one_of(&[DEADLINE], end);
        assert!(seen.keys().all(is_right), "{row}");
        beside.more(20).await;
        beside.finish().await;
    }
}

/// With a guest that spins on each thread the queue of ready work is never empty, and the sockets must be asked all the same: not
/// just after each 61 turns of 2 ms, which let these few answers take longer than the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_spin_on_every_thread_delay_others_by_a_few_turns_alone() {
    const ANSWERS: u32 = 100;
    let host = TestHost::serving("spin").with("--deadline", "10s").spawn_with(&[("TOKIO_WORKER_THREADS", "1")]);
    let spinning = tokio::spawn(insist(Protocol::Http1, host.addr(), "/spin"));
    eventually("it is seen to spin", async || {
        assert!(!spinning.is_finished(), "it is seen to spin before its deadline");
        sample(get(host.admin(), "/metrics").await.text(), "taffrail_requests_in_flight ", "") > 0.0
    })
    .await;
    let mut beside = Client::connect(Protocol::Http1, host.addr()).await;
    for _ in 0..ANSWERS {
        assert_eq!(beside.send(request("GET", host.addr(), "/", &[])).await.expect("an answer").status, 200);
    }
    assert!(!spinning.is_finished(), "{ANSWERS} answers take less than the deadline of one that spins");
    spinning.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_beside_healthy_ones() {
    let setup =
        TestHost::serving("echo").with("--header-timeout", "1s").with("--body-timeout", "1s").with("--deadline", "3s");
    let host = setup.start().await;
    let mut beside = Healthy::start(host.addr, "/");
    let starts: [&[u8]; 8] = [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow:",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nsome",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    let mut open = Vec::new();
    for round in 0..400 {
        let mut stream = TcpStream::connect(host.addr).await.expect("the host accepts");
        let _ = stream.write_all(starts[round % starts.len()]).await;
        match round % 3 {
            0 => stream.set_zero_linger().expect("a reset when dropped"), // and dropped here
            1 => {
                let _ = stream.shutdown().await; // half closed
                open.push(stream);
            }
            _ => open.push(stream),
        }
    }
    beside.more(100).await;
    // The host ends every one of them by itself.
    for mut stream in open {
        let mut rest = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
        let _ = tokio::time::timeout(PATIENCE, ended).await.expect("the host closes");
    }
    beside.more(20).await;
    assert!(beside.finish().await > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_idle_connections_beside_healthy_ones() {
    let host = TestHost::serving("hello").start().await;
    let mut idle = Vec::new();
    for _ in 0..5000 {
        idle.push(TcpStream::connect(host.addr).await.expect("the host accepts"));
    }
    let mut beside = Healthy::start(host.addr, "/ping");
    beside.more(200).await;
    beside.finish().await;
}

/// The address space has room for one guest alone: what the system refuses is never the guest's fault.
#[test]
fn a_process_without_address_space_blames_no_guest() {
    let mut process = Process::spawn(limited("ulimit -v 8388608", TestHost::serving("gather")));
    assert!(process.wait_for_line("\"ready\"").contains("on-demand"), "no room for a pool");
    let addr = process.addr();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for protocol in BOTH {
            let holding = async {
                loop {
                    let mut client = Client::connect(protocol, addr).await;
                    let (mut sender, body) = open_body();
                    let held =
                        tokio::spawn(async move { client.send(request_with("POST", addr, "/", &[], body)).await });
                    let _ = sender.send_data("held".into()).await;
                    // Until one of the two has the guest. The guest of an answer that is out may still be there.
                    while !held.is_finished() {
                        let answer = ask(protocol, addr, "GET", "/", &[]).await;
                        if answer.status != 200 {
                            return (held, sender, answer);
                        }
                    }
                }
            };
            let held = tokio::time::timeout(PATIENCE, holding).await;
            let (held, sender, answer) = held.expect("one of two requests has the guest");
            assert_eq!((answer.status.as_u16(), answer.header("taffrail-error")), (503, "host_out_of_memory"));
            assert_eq!(answer.header("retry-after"), "1");
            drop(sender);
            assert_eq!(held.await.expect("no panic").expect("an answer").text(), "4");
            assert_eq!(insist(protocol, addr, "/").await.status, 200, "and it is itself again");
        }
    });
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

/// The real binary, started by a shell that has set a limit.
fn limited(limit: &str, setup: Setup) -> std::process::Command {
    let inner = setup.command();
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &format!("{limit}; exec \"$@\""), "bash"]).arg(inner.get_program()).args(inner.get_args());
    command
}

/// 256 descriptors, a thousand clients: the host goes on, and is itself again when they leave.
#[test]
fn a_process_without_descriptors_recovers() {
    let setup = TestHost::serving("hello").with("--header-timeout", "1h");
    let mut process = Process::spawn(limited("ulimit -n 256", setup));
    let addr = process.addr();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..1000 {
            clients.push(TcpStream::connect(addr).await.expect("the kernel accepts"));
        }
        assert_eq!(get(process.admin(), "/livez").await.status, 200);
        let before = process.cpu_time();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await; // a second of being full, to see what it costs
        let spent = process.cpu_time() - before;
        assert!(spent.as_millis() < 200, "no busy loop: {spent:?} of CPU in a second");
        drop(clients);
        let since = std::time::Instant::now();
        assert_eq!(get(addr, "/ping").await.text(), "OK");
        println!("recovered {:?} after a thousand clients left", since.elapsed());
    });
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}
