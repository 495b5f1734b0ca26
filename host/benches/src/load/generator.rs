//! The load generator: as many clients as the workload says, in a closed loop or at a constant rate.
//!
//! At a constant rate a latency counts from the instant at which its request was due. A request that had to wait because
//! the server kept every client busy is as late as its user would find it: no coordinated omission.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::load::recorder::Recorder;
use crate::load::schedule::{Arrivals, Schedule};
use crate::load::timer::Timer;
use crate::load::workload::{Protocol, Workload};
use crate::load::{cpu_time, http1, http2};

/// How long after the end of a measurement a response may still come.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5000 });

/// Threads of the generator. On a machine with two cores each has its share of both, as the server has.
const THREADS: usize = 2;

/// One measurement to be made.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    pub workload: Workload,
    pub arrivals: Arrivals,
    pub target: SocketAddr,
    pub token: &'a str,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What was measured.
#[derive(Debug)]
pub struct Measurement {
    /// Expected responses a second.
    pub requests_per_second: f64,
    /// CPU time of the server during the measurement.
    pub server_cpu: Duration,
    /// CPU time of the generator during the measurement.
    pub generator_cpu: Duration,
    /// CPU time of all processes during the measurement.
    pub machine_cpu: Duration,
    /// Requests with the expected response.
    pub succeeded: u64,
    /// Requests with another response, or none.
    pub failed: u64,
    /// Why the first of them failed.
    pub first_error: Option<String>,
    /// Nanoseconds.
    latency: Histogram<u64>,
}

impl Measurement {
    /// A quantile of the latency in microseconds.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Runs the load. `server_cpu` tells the CPU time that the server has used so far.
///
/// # Errors
/// When the generator itself cannot run, or not one request succeeded.
pub fn run(load: &Load<'_>, server_cpu: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<Measurement> {
    let schedule = Arc::new(Schedule::from_now(load.arrivals, load.warm_up, load.measured));
    let (used, recorders) = thread::scope(|scope| {
        let workload = &load.workload;
        let threads = if workload.protocol == Protocol::Http2 { 1 } else { THREADS.min(workload.concurrency) };
        let threads: Vec<_> = (0..threads)
            .map(|index| {
                let clients = workload.concurrency / threads + usize::from(index < workload.concurrency % threads);
                let schedule = schedule.clone();
                scope.spawn(move || run_clients(load, clients, &schedule))
            })
            .collect();
        let used = cpu_times(&schedule, load.measured, server_cpu);
        let recorders: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        (used, recorders)
    });
    let [server_cpu, generator_cpu, machine_cpu] = used?;
    let mut total = Recorder::new()?;
    for recorder in recorders {
        total.merge(&recorder?)?;
    }
    let succeeded = total.latency.len();
    // Where it is known how many there should have been: those without a response count, and are as late as we waited.
    let unanswered = schedule.expected().map_or(0, |expected| expected.saturating_sub(succeeded + total.failed));
    total.failed += unanswered;
    ensure!(
        succeeded > 0,
        "not one request succeeded within {} s: {}",
        load.measured.as_secs_f64(),
        total.first_error.as_deref().unwrap_or("give it more --seconds")
    );
    total.latency.record_n(RESPONSE_TIMEOUT.as_nanos() as u64, unanswered)?;
    Ok(Measurement {
        requests_per_second: succeeded as f64 / load.measured.as_secs_f64(),
        server_cpu,
        generator_cpu,
        machine_cpu,
        succeeded,
        failed: total.failed,
        first_error: total.first_error,
        latency: total.latency,
    })
}

/// Waits for the end of the measurement. Returns what the server, the generator and the machine used in it.
fn cpu_times(
    schedule: &Schedule,
    measured: Duration,
    server_cpu: impl Fn() -> anyhow::Result<Duration>,
) -> anyhow::Result<[Duration; 3]> {
    let sample =
        || anyhow::Ok((Instant::now(), [server_cpu()?, cpu_time::of_this_process(), cpu_time::of_all_processes()?]));
    thread::sleep(schedule.start.saturating_duration_since(Instant::now()));
    let before = sample();
    thread::sleep(schedule.end.saturating_duration_since(Instant::now()));
    let ((begin, before), (end, after)) = (before?, sample()?);
    // On a busy machine this thread wakes late: what was used is for the time between the samples.
    let share = measured.as_secs_f64() / (end - begin).as_secs_f64();
    Ok([0, 1, 2].map(|which| after[which].saturating_sub(before[which]).mul_f64(share)))
}

/// Runs the clients of one thread.
fn run_clients(load: &Load<'_>, count: usize, schedule: &Arc<Schedule>) -> anyhow::Result<Recorder> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let recorder = Arc::new(Mutex::new(Recorder::new()?));
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        let shared = match load.workload.protocol {
            Protocol::Http2 => Some(http2::Client::connect(load.target, &load.workload, load.token).await?),
            _ => None,
        };
        for _ in 0..count {
            let client = match &shared {
                Some(client) => Client::Http2(client.clone()),
                None => Client::Http1(http1::Client::new(load.target, &load.workload, load.token)),
            };
            clients.spawn(client.run(schedule.clone(), recorder.clone(), Timer::new()?));
        }
        let latest = tokio::time::Instant::from_std(schedule.end + RESPONSE_TIMEOUT);
        while let Ok(Some(ended)) = tokio::time::timeout_at(latest, clients.join_next()).await {
            ended.context("a client of the generator")??;
        }
        if load.arrivals == Arrivals::ClosedLoop {
            // What still waits has taken longer than the measurement.
            recorder.lock().unwrap_or_else(PoisonError::into_inner).failed += clients.len() as u64;
        }
        anyhow::Ok(())
    })?;
    drop(runtime);
    let recorder = Arc::into_inner(recorder).context("a client has outlived its runtime")?;
    Ok(recorder.into_inner().unwrap_or_else(PoisonError::into_inner))
}

enum Client {
    Http1(http1::Client),
    Http2(http2::Client),
}

impl Client {
    async fn run(
        mut self,
        schedule: Arc<Schedule>,
        recorder: Arc<Mutex<Recorder>>,
        mut timer: Timer,
    ) -> anyhow::Result<()> {
        if let Self::Http1(client) = &mut self {
            let _ = client.connect().await; // the first request tries again, and says why not
        }
        let mut now = Instant::now();
        loop {
            let due = schedule.next_due(now);
            if due >= schedule.end {
                return Ok(());
            }
            timer.sleep_until(due).await?;
            let result = match &mut self {
                Self::Http1(client) => client.request().await,
                Self::Http2(client) => client.request().await,
            };
            now = Instant::now();
            if schedule.counts(due, now) {
                recorder.lock().unwrap_or_else(PoisonError::into_inner).record(result, now - due);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::load::workload::GREETING;

    const WORKLOAD: Workload =
        Workload { id: "app-1", title: "", protocol: Protocol::KeepAlive, concurrency: 1, body: 0 };

    /// A server for one client. `before` runs before each response, with its number, and says whether there is one.
    fn server(mut before: impl FnMut(u32) -> bool + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let stream = listener.accept().unwrap().0;
            stream.set_nodelay(true).unwrap();
            let mut requests = BufReader::new(&stream).lines();
            let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{GREETING}", GREETING.len());
            for number in 0.. {
                // The head ends with an empty line; the connection with the iterator.
                if !requests.by_ref().map_while(Result::ok).any(|line| line.is_empty()) {
                    return;
                }
                if before(number) && (&stream).write_all(response.as_bytes()).is_err() {
                    return;
                }
            }
        });
        address
    }

    fn load(target: SocketAddr, arrivals: Arrivals) -> Measurement {
        let (warm_up, measured) = (Duration::from_millis(200), Duration::from_secs(1));
        let load = Load { workload: WORKLOAD, arrivals, target, token: "token", warm_up, measured };
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
        let open = load(stalls(), Arrivals::ConstantRate(500.0));
        assert_eq!((open.succeeded, open.failed), (500, 0));
        assert!(open.latency_us(0.8) > 100_000.0, "two in five waited: p80 is {} µs", open.latency_us(0.8));
        let closed = load(stalls(), Arrivals::ClosedLoop);
        assert!(closed.latency_us(0.8) < 100_000.0, "in a closed loop one request hides it");
    }

    #[test]
    fn a_constant_rate_is_kept_and_its_timer_wakes_in_time() {
        let measurement = load(server(|_| true), Arrivals::ConstantRate(1000.0));
        assert_eq!((measurement.succeeded, measurement.failed), (1000, 0));
        assert!(measurement.latency_us(0.5) < 1000.0, "p50 is {} µs", measurement.latency_us(0.5));
    }

    #[test]
    fn a_request_without_a_response_has_failed_and_counts_with_the_timeout() {
        let measurement = load(server(|number| number < 600), Arrivals::ConstantRate(1000.0));
        // The first 200 were due during the warm-up.
        assert_eq!((measurement.succeeded, measurement.failed), (400, 600));
        assert!(measurement.latency_us(0.5) >= RESPONSE_TIMEOUT.as_micros() as f64 * 0.99);
    }

    #[test]
    fn another_response_than_expected_has_failed_and_says_why() {
        let workload = Workload { body: 10, ..WORKLOAD }; // the server's response is longer
        let (warm_up, measured) = (Duration::ZERO, Duration::from_millis(200));
        let target = server(|_| true);
        let load = Load { workload, arrivals: Arrivals::ClosedLoop, target, token: "token", warm_up, measured };
        let error = run(&load, || Ok(Duration::ZERO)).unwrap_err().to_string();
        assert!(error.contains("25 bytes instead of 10"), "{error}");
    }
}
