//! Long runs against the real binary: everything hostile at once beside healthy traffic, a drain under load, and a pod's
//! memory. In the suite they are short; `make soak` runs them at length, on the optimised binary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::hostile::Healthy;
use crate::support::*;

const MIB: u64 = 1024 * 1024;

/// A number from the environment, else the short run's.
fn setting(name: &str, short: u64) -> u64 {
    std::env::var(name).map_or(short, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

/// The guest `menace` does whatever the path says, so that one host has every broken component at once.
#[test]
fn healthy_requests_are_answered_for_as_long_as_everything_else_is_hostile() {
    let seconds = setting("TAFFRAIL_SOAK_SECONDS", 10);
    takes_longer(Duration::from_secs(seconds));
    let setup = TestHost::serving("menace")
        .with("--deadline", "1s")
        .with("--header-timeout", "1s")
        .with("--body-timeout", "1s")
        .with("--write-timeout", "1s")
        .with("--guest-memory", "16MiB")
        .with("--log", "warn,taffrail=info,access=off,guest=off");
    let mut process = setup.spawn();
    let addr = process.addr();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let series = runtime.block_on(async {
        let before = settled(&process).await;
        let mut healthy = Healthy::start(addr, "/");
        let stop = Arc::<AtomicBool>::default();
        let hostile = Arc::<AtomicU32>::default();
        let unexplained = Arc::<AtomicU32>::default();
        let mut menaces = JoinSet::new();
        for protocol in BOTH {
            for target in MENACES {
                let (stop, hostile, unexplained) = (stop.clone(), hostile.clone(), unexplained.clone());
                menaces.spawn(async move {
                    while !stop.load(Relaxed) {
                        // Nothing but what ends late is ever answered as if all were well.
                        let explained = match menace(protocol, addr, target).await {
                            Some(answer) if answer.status == 200 => target == "/late",
                            Some(answer) => !answer.header("taffrail-error").is_empty(),
                            None => true, // cut
                        };
                        unexplained.fetch_add(u32::from(!explained), Relaxed);
                        hostile.fetch_add(1, Relaxed);
                    }
                });
            }
        }
        for start in CLIENTS {
            let (stop, hostile) = (stop.clone(), hostile.clone());
            menaces.spawn(async move {
                while !stop.load(Relaxed) {
                    let mut stream = TcpStream::connect(addr).await.expect("the host accepts");
                    let _ = stream.write_all(start).await;
                    let mut rest = Vec::new();
                    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end");
                    hostile.fetch_add(1, Relaxed);
                }
            });
        }
        let (started, mut series) = (Instant::now(), Vec::new());
        let (step, minutes) = ((seconds / 10).clamp(1, 10), seconds.min(60));
        while started.elapsed().as_secs() < seconds {
            tokio::time::sleep(Duration::from_secs(step)).await;
            series.push((started.elapsed().as_secs(), process.memory(), process.descriptors()));
            let (at, memory, descriptors) = series[series.len() - 1];
            println!(
                "{at:4} s  {:4} MiB  {descriptors:4} descriptors  {:8} healthy  {:7} hostile",
                memory / MIB,
                healthy.answered(),
                hostile.load(Relaxed)
            );
            healthy.more(1).await;
        }
        stop.store(true, Relaxed);
        while let Some(ended) = menaces.join_next().await {
            ended.expect("a hostile client's own part works");
        }
        let answered = healthy.finish().await;
        assert_eq!(unexplained.load(Relaxed), 0, "every failure carries its reason");
        let after = settled(&process).await;
        println!("{answered} healthy requests, all answered; descriptors {before} before, {after} after");
        assert_eq!(before, after, "no descriptor is left behind");
        series.retain(|(at, _, _)| *at >= minutes.min(seconds / 2));
        series
    });
    let first = series.first().expect("a series").1;
    let highest = series.iter().map(|(_, memory, _)| *memory).max().expect("a series");
    assert!(highest < first + first / 4 + 16 * MIB, "memory is flat: {} MiB, then {} MiB", first / MIB, highest / MIB);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0), "and nothing was in flight at the end");
}

const MENACES: [&str; 12] = [
    "/spin",
    "/sleep",
    "/grow",
    "/recurse",
    "/trap",
    "/silent",
    "/exit",
    "/flood",
    "/short",
    "/large-header",
    "/handles",
    "/late",
];

const CLIENTS: [&[u8]; 6] = [
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow:",
    b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nsome",
    b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
];

/// An answer; `None` for one that was cut.
async fn menace(protocol: Protocol, addr: std::net::SocketAddr, target: &str) -> Option<Answer> {
    let asked = async {
        let mut client = Client::connect(protocol, addr).await;
        client.send(request("GET", addr, target, &[])).await
    };
    match tokio::time::timeout(PATIENCE, asked).await.expect("an end in time") {
        Ok(answer) => Some(answer),
        Err(error) if is_cut(&error) => None,
        Err(error) => panic!("{protocol:?} {target}: {error:?}"),
    }
}

/// The number of descriptors once it no longer falls: closed connections take a moment to be gone.
async fn settled(process: &Process) -> usize {
    let mut lowest = process.descriptors();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        lowest = lowest.min(process.descriptors());
    }
    lowest
}

/// SIGTERM under mixed load: no request fails as long as the balancer stops sending within the delay.
#[test]
fn no_request_fails_while_the_host_drains_under_load() {
    let rounds = setting("TAFFRAIL_DRAIN_ROUNDS", 2);
    let rate = setting("TAFFRAIL_DRAIN_RATE", 1000);
    takes_longer(Duration::from_secs(rounds * 5));
    for round in 1..=rounds {
        let mut process =
            TestHost::serving("hello").with("--drain-delay", "1s").with("--log", "warn,taffrail=info").spawn();
        let addr = process.addr();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (sent, seconds) = runtime.block_on(async {
            let stop = Arc::<AtomicBool>::default();
            let sent = Arc::<AtomicU32>::default();
            let mut clients = JoinSet::new();
            let started = Instant::now();
            for number in 0..40 {
                let (stop, sent) = (stop.clone(), sent.clone());
                clients.spawn(async move {
                    let protocol = if number % 4 == 3 { Protocol::Http2 } else { Protocol::Http1 };
                    let mut kept = None;
                    let mut clock = tokio::time::interval(Duration::from_micros(40 * 1_000_000 / rate));
                    while !stop.load(Relaxed) {
                        clock.tick().await;
                        // A third of the clients makes a new connection for every request.
                        let mut client = match kept.take() {
                            Some(client) if number % 3 != 0 => client,
                            _ => Client::connect(protocol, addr).await,
                        };
                        let answer = client.send(request("GET", addr, "/ping", &[])).await;
                        let answer =
                            answer.unwrap_or_else(|error| panic!("round {round}: a request failed: {error:?}"));
                        assert_eq!(answer.status, 200, "round {round}");
                        sent.fetch_add(1, Relaxed);
                        // As a balancer does: a connection that says so is not used again.
                        if answer.header("connection") != "close" {
                            kept = Some(client);
                        }
                    }
                });
            }
            tokio::time::sleep(Duration::from_millis(500)).await; // the load runs
            process.signal(Signal::TERM);
            eventually("it is not ready", async || get(process.admin(), "/readyz").await.status == 503).await;
            tokio::time::sleep(Duration::from_millis(300)).await; // the balancer takes its time to see it
            stop.store(true, Relaxed);
            while let Some(client) = clients.join_next().await {
                client.expect("no request failed");
            }
            (sent.load(Relaxed), started.elapsed().as_secs_f64())
        });
        assert_eq!(process.wait().code(), Some(0));
        println!("round {round:2}: {sent} requests at {:.0}/s, 0 failed", f64::from(sent) / seconds);
    }
}

/// The defaults in a pod of 128 MiB: ten times the admitted load knocks, and the kernel kills nobody.
#[test]
fn in_128_mib_the_defaults_hold() {
    let seconds = setting("TAFFRAIL_MEMORY_SECONDS", 3);
    takes_longer(Duration::from_secs(seconds));
    let Some(group) = MemoryGroup::of(128 * MIB) else { return };
    // Compiled there as well, as in a pod.
    let setup = Setup::file(&component("menace")).with("--deadline", "2s");
    let inner = setup.with("--log", "warn,taffrail=info").command();
    let mut process = Process::spawn(group.run(&inner));
    let addr = process.addr();
    let ready: serde_json::Value = serde_json::from_str(&process.wait_for_line("\"ready\"")).expect("a JSON line");
    let admitted = ready["max_in_flight"].as_u64().expect("a number");
    assert_eq!(ready["memory"], 128 * MIB, "{ready}");
    let (mut answered, mut shed) = (0_u32, 0_u32);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut knocking = JoinSet::new();
        for number in 0..admitted * 10 {
            let target = ["/grow", "/flood", "/sleep", "/"][(number % 4) as usize];
            knocking.spawn(async move {
                let (mut answered, mut shed) = (0, 0);
                while Instant::now() < until {
                    match menace(Protocol::Http1, addr, target).await.map(|answer| answer.status.as_u16()) {
                        Some(503) => shed += 1,
                        _ => answered += 1,
                    }
                }
                (answered, shed)
            });
        }
        while let Some(ended) = knocking.join_next().await {
            let (more_answered, more_shed) = ended.expect("no panic");
            answered += more_answered;
            shed += more_shed;
        }
        assert_eq!(get(addr, "/").await.text(), "fine");
    });
    println!("admitted {admitted}, {answered} answered, {shed} shed, peak {} MiB of 128", group.peak() / MIB);
    assert!(shed > 0, "more knocked than was admitted");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0), "not killed");
}
