//! The load generator: as many clients as the work says, in a closed loop (each asks again as soon as it is answered)
//! or in an open one (requests are due at a fixed rate, whatever becomes of the earlier ones).
//!
//! In the open loop a latency counts from the instant at which its request was due. A request that had to wait because
//! the subject kept every client busy is as late as its user would find it: no coordinated omission.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;

use crate::pace::{Alarm, Plan};
use crate::{http1, http2, machine};

/// How long after the end of a measurement an answer may still come.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5000 });

/// Threads of the generator. On a machine with two cores each has its share of both, as the subject has.
const THREADS: usize = 2;

/// The body of a greeting.
const GREETING: &str = r#"{"message":"Hello World"}"#;

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, each client keeps its connection.
    KeepAlive,
    /// HTTP/1.1, each request opens a connection.
    NewConnection,
    /// HTTP/2, all clients are streams of one connection.
    Http2,
}

/// What is asked of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Its name on the command line and in the JSON.
    pub id: &'static str,
    /// Its name in the tables.
    pub title: &'static str,
    /// How its clients speak.
    pub protocol: Protocol,
    /// How many there are.
    pub clients: usize,
    /// Bytes that `POST /echo` sends and gets back; 0 for `GET /app` with the token.
    pub body: usize,
}

impl Work {
    /// Bytes of the right answer's body.
    pub fn answer(&self) -> u64 {
        if self.body == 0 { GREETING.len() as u64 } else { self.body as u64 }
    }
}

/// When requests are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// As soon as a client is free.
    Closed,
    /// At so many a second, evenly.
    Open(f64),
}

/// One measurement to be made.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    pub work: Work,
    pub schedule: Schedule,
    pub target: SocketAddr,
    pub token: &'a str,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Right answers a second.
    pub per_second: f64,
    /// CPU time of the subject during the measurement.
    pub cpu: Duration,
    /// CPU time of the generator during the measurement.
    pub own_cpu: Duration,
    /// CPU time of all processes during the measurement.
    pub machine_cpu: Duration,
    /// Right answers.
    pub answered: u64,
    /// Requests with a wrong answer, or none.
    pub failed: u64,
    /// Why the first of them failed.
    pub failure: Option<String>,
    /// Nanoseconds.
    latency: Histogram<u64>,
}

impl Outcome {
    /// A quantile of the latency in microseconds.
    pub fn microseconds(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Runs the load. `cpu` tells the CPU time that the subject has used so far.
///
/// # Errors
/// When the generator itself cannot run, or not one request was answered.
pub fn run(load: &Load<'_>, cpu: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<Outcome> {
    let begin = Instant::now();
    let start = begin + load.warm_up;
    let plan =
        Arc::new(Plan { schedule: load.schedule, begin, start, end: start + load.measured, taken: AtomicU64::new(0) });
    let (used, records) = thread::scope(|scope| {
        let threads = if load.work.protocol == Protocol::Http2 { 1 } else { THREADS.min(load.work.clients) };
        let threads: Vec<_> = (0..threads)
            .map(|index| {
                let clients = load.work.clients / threads + usize::from(index < load.work.clients % threads);
                let plan = plan.clone();
                scope.spawn(move || clients_of_one_thread(load, clients, &plan))
            })
            .collect();
        thread::sleep(plan.start.saturating_duration_since(Instant::now()));
        let sample = || anyhow::Ok((Instant::now(), [cpu()?, own_cpu(), machine::cpu()?]));
        let before = sample();
        thread::sleep(plan.end.saturating_duration_since(Instant::now()));
        let after = sample();
        let used = before.and_then(|before| {
            let ((begin, before), (end, after)) = (before, after?);
            // On a busy machine this thread wakes late: what was used is for the time between the samples.
            let share = load.measured.as_secs_f64() / (end - begin).as_secs_f64();
            Ok([0, 1, 2].map(|which| after[which].saturating_sub(before[which]).mul_f64(share)))
        });
        let records: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        (used, records)
    });
    let [cpu, own_cpu, machine_cpu] = used?;
    let mut total = Record::new()?;
    for record in records {
        total.add(&record?)?;
    }
    // In the open loop it is known how many there should have been: those without an answer count, and are as late as
    // we waited for them.
    let unanswered = plan.expected().saturating_sub(total.latency.len() + total.failed);
    total.failed += unanswered;
    let answered = total.latency.len();
    ensure!(
        answered > 0,
        "not one request was answered within {} s: {}",
        load.measured.as_secs_f64(),
        total.failure.as_deref().unwrap_or("give it more --seconds")
    );
    total.latency.record_n(PATIENCE.as_nanos() as u64, unanswered)?;
    Ok(Outcome {
        per_second: answered as f64 / load.measured.as_secs_f64(),
        cpu,
        own_cpu,
        machine_cpu,
        answered,
        failed: total.failed,
        failure: total.failure,
        latency: total.latency,
    })
}

/// CPU time of this process until now.
fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// What the clients of one thread have seen.
struct Record {
    latency: Histogram<u64>,
    failed: u64,
    failure: Option<String>,
}

impl Record {
    fn new() -> anyhow::Result<Self> {
        let minute = 60_000_000_000; // nanoseconds; longer ones count as that
        Ok(Self { latency: Histogram::new_with_bounds(100, minute, 3)?, failed: 0, failure: None })
    }

    fn see(&mut self, outcome: anyhow::Result<()>, latency: Duration) {
        match outcome {
            Ok(()) => self.latency.saturating_record(latency.as_nanos() as u64),
            Err(error) => {
                self.failed += 1;
                self.failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.latency.add(&other.latency)?;
        self.failed += other.failed;
        self.failure = self.failure.take().or_else(|| other.failure.clone());
        Ok(())
    }
}

fn clients_of_one_thread(load: &Load<'_>, count: usize, plan: &Arc<Plan>) -> anyhow::Result<Record> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let record = Arc::new(Mutex::new(Record::new()?));
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        let shared = match load.work.protocol {
            Protocol::Http2 => Some(http2::Client::connect(load.target, &load.work, load.token).await?),
            _ => None,
        };
        for _ in 0..count {
            let client = match &shared {
                Some(client) => Client::Http2(client.clone()),
                None => Client::Http1(http1::Client::new(load.target, &load.work, load.token)),
            };
            clients.spawn(client.run(plan.clone(), record.clone(), Alarm::new()?));
        }
        let patience = tokio::time::Instant::from_std(plan.end + PATIENCE);
        while let Ok(Some(ended)) = tokio::time::timeout_at(patience, clients.join_next()).await {
            ended.context("a client of the generator")?;
        }
        if plan.schedule == Schedule::Closed {
            // What still waits has taken longer than the measurement.
            record.lock().unwrap_or_else(PoisonError::into_inner).failed += clients.len() as u64;
        }
        anyhow::Ok(())
    })?;
    drop(runtime);
    let record = Arc::into_inner(record).context("a client has outlived its runtime")?;
    Ok(record.into_inner().unwrap_or_else(PoisonError::into_inner))
}

enum Client {
    Http1(http1::Client),
    Http2(http2::Client),
}

impl Client {
    async fn run(mut self, plan: Arc<Plan>, record: Arc<Mutex<Record>>, mut alarm: Alarm) {
        if let Self::Http1(client) = &mut self {
            let _ = client.prepare().await; // the first request tries again, and says why not
        }
        let mut now = Instant::now();
        loop {
            let due = match plan.schedule {
                Schedule::Closed => now,
                Schedule::Open(per_second) => plan.next(per_second),
            };
            if due >= plan.end {
                return;
            }
            alarm.until(due).await;
            let outcome = match &mut self {
                Self::Http1(client) => client.request().await,
                Self::Http2(client) => client.request().await,
            };
            now = Instant::now();
            if plan.counts(due, now) {
                record.lock().unwrap_or_else(PoisonError::into_inner).see(outcome, now - due);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    const WORK: Work = Work { id: "app-1", title: "", protocol: Protocol::KeepAlive, clients: 1, body: 0 };

    /// A server for one client. `before` runs before each answer, with its number, and says whether there is one.
    fn server(mut before: impl FnMut(u32) -> bool + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let stream = listener.accept().unwrap().0;
            stream.set_nodelay(true).unwrap();
            let mut requests = BufReader::new(&stream).lines();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{GREETING}", GREETING.len());
            for number in 0.. {
                // The head ends with an empty line; the connection with the iterator.
                if !requests.by_ref().map_while(Result::ok).any(|line| line.is_empty()) {
                    return;
                }
                if before(number) && (&stream).write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        address
    }

    fn load(target: SocketAddr, schedule: Schedule) -> Outcome {
        let (warm_up, measured) = (Duration::from_millis(200), Duration::from_secs(1));
        let load = Load { work: WORK, schedule, target, token: "token", warm_up, measured };
        run(&load, || Ok(Duration::ZERO)).unwrap()
    }

    /// Stops for 400 ms, once, in the middle of the measurement.
    fn stalls() -> SocketAddr {
        let begin = Instant::now();
        let mut stalled = false;
        server(move |_| {
            if !stalled && begin.elapsed() > Duration::from_millis(400) {
                stalled = true;
                thread::sleep(Duration::from_millis(400));
            }
            true
        })
    }

    #[test]
    fn a_stall_makes_every_request_late_that_was_due_meanwhile() {
        let open = load(stalls(), Schedule::Open(500.0));
        assert_eq!((open.answered, open.failed), (500, 0));
        assert!(open.microseconds(0.8) > 100_000.0, "two in five waited: p80 is {} µs", open.microseconds(0.8));
        let closed = load(stalls(), Schedule::Closed);
        assert!(closed.microseconds(0.8) < 100_000.0, "in a closed loop one request hides it");
    }

    #[test]
    fn the_open_loop_keeps_its_rate_and_wakes_in_time() {
        let outcome = load(server(|_| true), Schedule::Open(1000.0));
        assert_eq!((outcome.answered, outcome.failed), (1000, 0));
        assert!(outcome.microseconds(0.5) < 1000.0, "p50 is {} µs", outcome.microseconds(0.5));
    }

    #[test]
    fn a_request_without_an_answer_has_failed_and_is_as_late_as_can_be() {
        let outcome = load(server(|number| number < 600), Schedule::Open(1000.0));
        // The first 200 were due during the warm-up.
        assert_eq!((outcome.answered, outcome.failed), (400, 600));
        assert!(outcome.microseconds(0.5) >= PATIENCE.as_micros() as f64 * 0.99);
    }

    #[test]
    fn a_wrong_answer_has_failed_and_says_why() {
        let work = Work { body: 10, ..WORK }; // the server's answer is longer
        let (warm_up, measured) = (Duration::ZERO, Duration::from_millis(200));
        let target = server(|_| true);
        let load = Load { work, schedule: Schedule::Closed, target, token: "token", warm_up, measured };
        let error = run(&load, || Ok(Duration::ZERO)).unwrap_err().to_string();
        assert!(error.contains("25 bytes instead of 10"), "{error}");
    }
}
