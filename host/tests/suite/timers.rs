//! Timers mean what they say: each is over at the value of its flag, give or take a fifth.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::metrics::sample;
use crate::support::frames::*;
use crate::support::*;

/// What a timer of these tests is set to.
const VALUE: Duration = Duration::from_secs(2);
const FLAG: &str = "2s";

/// Checks that what is measured takes [`VALUE`]. A machine that is busy with other tests may be late, but a timer that lies is late
/// each time; and too early is wrong at once.
async fn takes_its_time<F: Future<Output = Duration>>(what: String, mut measure: impl FnMut() -> F) {
    let mut late = Vec::new();
    while late.len() < 3 {
        let took = measure().await;
        assert!(took >= VALUE * 4 / 5, "{what}: after {took:?}, and the flag says {VALUE:?}");
        if took <= VALUE * 6 / 5 {
            return;
        }
        late.push(took);
    }
    panic!("{what}: after {late:?}, and the flag says {VALUE:?}");
}

/// Reads to the end.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the host closes");
}

/// A connection that has sent this.
async fn sent(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.expect("the host accepts");
    stream.write_all(bytes).await.expect("sent");
    stream
}

async fn until_text(stream: &mut TcpStream, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut seen)).await.expect("in time").expect("read");
        assert!(read > 0, "closed before {text:?}");
    }
}

/// A connection of HTTP/2 whose first request is answered.
async fn answered(addr: SocketAddr) -> Frames {
    let mut client = Frames::connect(addr, &[]).await;
    client.get(std::iter::once(1), "/").await;
    loop {
        let frame = client.next().await.expect("an answer");
        if frame.stream == 1 && frame.flags & END_STREAM > 0 {
            return client;
        }
    }
}

async fn joined(mut all: JoinSet<()>) {
    while let Some(one) = all.join_next().await {
        one.expect("each takes its time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_head_has_the_header_timeout_from_the_start_of_its_connection() {
    let host = TestHost::serving("echo").with("--header-timeout", FLAG).with("--idle-timeout", "1h").start().await;
    let addr = host.addr;
    let mut all = JoinSet::new();
    for start in [&b""[..], b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"PRI * HTTP/2.0\r\n", b"\r\n"] {
        all.spawn(async move {
            let what = format!("{:?}", String::from_utf8_lossy(start));
            takes_its_time(what, move || async move {
                let since = Instant::now();
                closed(&mut sent(addr, start).await).await;
                since.elapsed()
            })
            .await;
        });
        // Half of the time goes by before it is known what is spoken: that does not begin a new one.
        all.spawn(async move {
            takes_its_time("P, and the rest of a method".to_owned(), move || async move {
                let since = Instant::now();
                let mut stream = sent(addr, b"P").await;
                tokio::time::sleep(VALUE / 2).await;
                stream.write_all(b"OST / HTTP/1.1\r\nHost").await.expect("sent");
                closed(&mut stream).await;
                since.elapsed()
            })
            .await;
        });
    }
    for half in [&[][..], &frame(HEADERS, END_STREAM, 1, &get_block("/")), &frame(HEADERS, 5, 1, &get_block("/"))[..12]]
    {
        let half = half.to_vec();
        all.spawn(async move {
            let what = format!("HTTP/2: {half:?}");
            takes_its_time(what, move || {
                let half = half.clone();
                async move {
                    let since = Instant::now();
                    let mut client = Frames::connect(addr, &[]).await;
                    client.send(&half).await;
                    client.next_of(GOAWAY).await;
                    since.elapsed()
                }
            })
            .await;
        });
    }
    joined(all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_behind_an_answer_has_the_header_timeout_from_its_first_byte() {
    const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const HALF: &[u8] = b"GET / HTTP/1.1\r\nHost";
    let host = TestHost::serving("echo").with("--header-timeout", FLAG).with("--idle-timeout", "1h").start().await;
    let addr = host.addr;
    let mut all = JoinSet::new();
    all.spawn(async move {
        takes_its_time("in one piece with the request before".to_owned(), move || async move {
            let mut stream = sent(addr, &[WHOLE, HALF].concat()).await;
            until_text(&mut stream, "\r\n\r\n").await;
            let since = Instant::now();
            closed(&mut stream).await;
            since.elapsed()
        })
        .await;
    });
    all.spawn(async move {
        takes_its_time("after the answer".to_owned(), move || async move {
            let mut stream = sent(addr, WHOLE).await;
            until_text(&mut stream, "\r\n\r\n").await;
            stream.write_all(HALF).await.expect("sent");
            let since = Instant::now();
            closed(&mut stream).await;
            since.elapsed()
        })
        .await;
    });
    all.spawn(async move {
        takes_its_time("over HTTP/2".to_owned(), move || async move {
            let mut client = answered(addr).await;
            client.send(&frame(HEADERS, END_STREAM, 3, &get_block("/"))).await;
            let since = Instant::now();
            client.next_of(GOAWAY).await;
            since.elapsed()
        })
        .await;
    });
    joined(all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_has_the_idle_timeout_whatever_frames_come() {
    const PING: u8 = 6;
    let host = TestHost::serving("echo").with("--idle-timeout", FLAG).with("--header-timeout", "1h").start().await;
    let addr = host.addr;
    let mut all = JoinSet::new();
    all.spawn(async move {
        takes_its_time("HTTP/1.1".to_owned(), move || async move {
            let mut stream = sent(addr, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            until_text(&mut stream, "\r\n\r\n").await;
            let since = Instant::now();
            closed(&mut stream).await;
            since.elapsed()
        })
        .await;
    });
    for pings in [false, true] {
        all.spawn(async move {
            takes_its_time("HTTP/2".to_owned(), move || async move {
                let mut client = answered(addr).await;
                let since = Instant::now();
                if pings {
                    tokio::time::sleep(VALUE / 2).await;
                    client.send(&frame(PING, 0, 0, &[0; 8])).await;
                }
                client.next_of(GOAWAY).await;
                since.elapsed()
            })
            .await;
        });
    }
    joined(all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_has_the_body_timeout_and_a_request_its_deadline() {
    let mut all = JoinSet::new();
    for (flag, other, guest, target, status) in [
        ("--body-timeout", "--deadline", "gather", "/", 408),
        ("--deadline", "--body-timeout", "gather", "/", 504),
        ("--deadline", "--body-timeout", "sleep", "/sleep", 504),
        ("--deadline", "--body-timeout", "spin", "/spin", 504),
    ] {
        let host = TestHost::serving(guest).with(flag, FLAG).with(other, "1h").start().await;
        let addr = host.addr;
        for protocol in BOTH {
            all.spawn(async move {
                takes_its_time(format!("{flag} {guest} {protocol:?}"), move || async move {
                    let mut client = Client::connect(protocol, addr).await;
                    let (sender, body) = open_body();
                    let since = Instant::now();
                    let answer = client.send(request_with("POST", addr, target, &[], body)).await.expect("an answer");
                    assert_eq!(answer.status, status, "{answer:?}");
                    drop(sender);
                    since.elapsed()
                })
                .await;
            });
        }
        // A guest that spins has every thread: one after the other.
        joined(std::mem::take(&mut all)).await;
    }
}

async fn in_flight(admin: SocketAddr) -> f64 {
    sample(get(admin, "/metrics").await.text(), "taffrail_requests_in_flight ", "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_has_the_write_timeout_or_the_deadline() {
    for (flag, other) in [("--write-timeout", "--deadline"), ("--deadline", "--write-timeout")] {
        for protocol in BOTH {
            let host = TestHost::serving("flood").with(flag, FLAG).with(other, "1h").start().await;
            let (addr, admin) = (host.addr, host.admin);
            takes_its_time(format!("{flag} {protocol:?}"), move || async move {
                let mut client = Client::connect(protocol, addr).await;
                let since = Instant::now();
                let response = client.open(request("GET", addr, "/flood", &[])).await.expect("a head");
                eventually("it is cut", async || in_flight(admin).await == 0.0).await;
                drop((client, response));
                since.elapsed()
            })
            .await;
        }
    }
}

/// What a client has begun to ask for before it heard the goodbye is answered, however long that takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_during_the_goodbye_is_answered() {
    const LONGER: Duration = Duration::from_secs(4);
    let setup = TestHost::serving("gather").with("--idle-timeout", "300ms").with("--header-timeout", "2s");
    let host = setup.start().await;
    let mut client = answered(host.addr).await;
    client.next_of(GOAWAY).await.expect("a goodbye");
    let mut post = get_block("/");
    post[0] = 0x83; // of the static table
    client.send(&frame(HEADERS, END_HEADERS, 3, &post)).await;
    tokio::time::sleep(LONGER).await; // than every other time of the connection
    client.send(&frame(DATA, END_STREAM, 3, b"four")).await;
    let answer = client.next_of(DATA).await.expect("an answer");
    assert_eq!((answer.stream, &*answer.payload), (3, &b"4"[..]));
}

/// The host's own times for those who have nothing to lose: half a second for who has said nothing, and a moment more for HTTP/2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_asked_for_nothing_does_not_hold_the_drain() {
    for (starts, within) in [
        (&[&b""[..], b"P", b"PRI * HTTP/2.0\r\n"][..], Duration::from_millis(1500)),
        (&[PREFACE], Duration::from_secs(4)),
    ] {
        let mut host = TestHost::serving("hello").with("--header-timeout", "1h").start().await;
        let mut open = Vec::new();
        for start in starts {
            open.push(sent(host.addr, start).await);
        }
        // The last of them was accepted before this one is answered.
        assert_eq!(get(host.addr, "/ping").await.status, 200);
        let since = Instant::now();
        assert_eq!(host.drain().await.expect("drained").cut, 0);
        assert!(since.elapsed() < within, "{starts:?}: {:?}", since.elapsed());
    }
}

/// Nothing is asked again and again: what has come is read once, and the rest is waited for.
#[test]
fn half_a_preface_costs_nothing() {
    const CONNECTIONS: usize = 500;
    let process = TestHost::serving("hello").spawn();
    let addr = process.addr();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            open.push(sent(addr, b"PRI * HTTP/2.0\r\n").await);
        }
        assert_eq!(get(addr, "/ping").await.status, 200, "all of them were accepted");
        let (before, second) = (process.cpu_time(), Duration::from_secs(1));
        tokio::time::sleep(second).await;
        let used = process.cpu_time() - before;
        assert!(used < second / 10, "{CONNECTIONS} connections that wait use {used:?} a second");
    });
}
