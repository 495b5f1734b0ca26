//! Instances of WASI 0.3 that answer several requests at the same time, where `--instance-concurrency` asks for it. Each is
//! run by a task of its own: here alone a request is not polled by its connection.
//!
//! What is shared cannot be told apart. A failure of one request ends the instance, and with it the others that it
//! answers; what a guest prints names no request; what it calls is in no trace. A single request cannot be stopped: one that
//! is out of time, or whose client has left, makes its instance take no others, and it ends with the last of them.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::Request;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use wasmtime::Store;
use wasmtime_wasi_http::p3::bindings::Service;

use super::failure::failure;
use super::response::Head;
use super::run::BusyTime;
use super::store::State;
use super::wasi03;
use crate::config::Reuse;
use crate::error::Error;
use crate::http::request_body::RequestBody;
use crate::telemetry::metrics::{Metrics, Retired};

/// How long an instance that is to end may work on when it has answered everybody.
const AFTERWORK: Duration = Duration::from_secs(30);

/// All instances that answer several requests at the same time.
#[derive(Debug)]
pub(crate) struct SharedInstances {
    reuse: Reuse,
    instances: Mutex<Vec<Entry>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    jobs: mpsc::UnboundedSender<Job>,
    ending: Arc<Ending>,
    driver: AbortHandle,
    /// Requests that it answers now, and all that it was given.
    live: u32,
    requests: u32,
    /// Why it takes no others.
    closed: Option<Retired>,
    idle_since: Instant,
}

impl Entry {
    /// Whether it takes requests: one that has just failed takes none, though those that it answered do not know it yet.
    fn is_open(&self) -> bool {
        self.closed.is_none() && !self.jobs.is_closed()
    }
}

#[derive(Debug)]
struct Job {
    request: Request<RequestBody>,
    head: oneshot::Sender<Head>,
    /// Told the linear memory of the instance when the response was taken.
    taken: oneshot::Sender<usize>,
}

/// How an instance has ended.
#[derive(Debug, Default)]
struct Ending {
    /// Taken by the first request that asks; which request was the cause is not known.
    error: Mutex<Option<Error>>,
    is_over: CancellationToken,
}

impl SharedInstances {
    /// No instance yet.
    pub(crate) fn new(reuse: Reuse, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { reuse, instances: Mutex::default(), metrics })
    }

    /// A place in the instance that has the fewest requests now. None where a new one is better: every one has as many as it
    /// may, or each has some and there are threads for more.
    pub(crate) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        let mut instances = self.lock();
        let open = instances.iter().filter(|one| one.is_open()).count();
        let free = instances.iter_mut().filter(|one| one.is_open() && one.live < self.reuse.concurrency);
        let entry = free.min_by_key(|one| one.live)?;
        if entry.live > 0 && open < threads {
            return None;
        }
        Some(self.assign(entry))
    }

    /// A place in a new instance.
    pub(crate) fn open(self: &Arc<Self>, service: Service, store: Store<State>) -> Seat {
        let (jobs, queue) = mpsc::unbounded_channel();
        let ending = Arc::<Ending>::default();
        let driver = tokio::spawn(drive(service, store, queue, ending.clone(), self.metrics.clone())).abort_handle();
        self.add(jobs, ending, driver)
    }

    fn add(self: &Arc<Self>, jobs: mpsc::UnboundedSender<Job>, ending: Arc<Ending>, driver: AbortHandle) -> Seat {
        let id = fastrand::u64(..);
        let idle_since = Instant::now();
        let mut entry = Entry { id, jobs, ending, driver, live: 0, requests: 0, closed: None, idle_since };
        let mut instances = self.lock();
        let seat = self.assign(&mut entry);
        instances.push(entry);
        seat
    }

    fn assign(self: &Arc<Self>, entry: &mut Entry) -> Seat {
        entry.live += 1;
        entry.requests += 1;
        if entry.requests >= self.reuse.requests {
            entry.closed = Some(Retired::Requests);
        }
        let (jobs, ending) = (entry.jobs.clone(), entry.ending.clone());
        Seat { all: self.clone(), id: entry.id, jobs: Some(jobs), ending, answered: None }
    }

    /// Ends those that have waited for longer than `--instance-idle`.
    pub(crate) fn retire_old(&self) {
        let mut instances = self.lock();
        for one in instances.iter_mut().filter(|one| one.live == 0 && one.idle_since.elapsed() >= self.reuse.idle) {
            one.closed.get_or_insert(Retired::Idle);
        }
        self.sweep(&mut instances);
    }

    fn leave(&self, id: u64, memory: Option<usize>) {
        let mut instances = self.lock();
        let Some(entry) = instances.iter_mut().find(|one| one.id == id) else { return };
        entry.live -= 1;
        entry.idle_since = Instant::now();
        match memory {
            None => entry.closed = Some(Retired::Failed),
            Some(memory) if memory > self.reuse.memory => _ = entry.closed.get_or_insert(Retired::Memory),
            Some(_) => {}
        }
        self.sweep(&mut instances);
    }

    /// Lets go of those that take no others and answer nobody. Without jobs to come they end by themselves; one that failed
    /// may never.
    fn sweep(&self, instances: &mut Vec<Entry>) {
        instances.retain(|one| match one.closed {
            Some(why) if one.live == 0 => {
                if why == Retired::Failed {
                    one.driver.abort();
                }
                self.metrics.instance_retired(why);
                false
            }
            _ => true,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in an instance. Dropped before the response was taken, it has the instance take no others.
#[derive(Debug)]
pub(crate) struct Seat {
    all: Arc<SharedInstances>,
    id: u64,
    jobs: Option<mpsc::UnboundedSender<Job>>,
    ending: Arc<Ending>,
    /// The instance's memory when the response was taken.
    answered: Option<usize>,
}

impl Seat {
    /// Hands the request to the component. Ends when the response was taken.
    ///
    /// # Errors
    /// How the guest failed, in this request or in another.
    pub(crate) async fn run(mut self, request: Request<RequestBody>, head: oneshot::Sender<Head>) -> Result<(), Error> {
        let (taken, whole) = oneshot::channel();
        if let Some(jobs) = self.jobs.take() {
            let _ = jobs.send(Job { request, head, taken }); // the end of the instance shows below
        }
        if let Ok(memory) = whole.await {
            self.answered = Some(memory);
            return Ok(());
        }
        self.ending.is_over.cancelled().await;
        let error = self.ending.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(error.unwrap_or_else(|| {
            Error::GuestTrapped(
                "the instance ended with another request, which it answered at the same time".to_owned(),
            )
        }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.all.leave(self.id, self.answered);
    }
}

/// Runs an instance until nobody gives it requests any more, or one of them fails.
async fn drive(
    service: Service,
    mut store: Store<State>,
    mut queue: mpsc::UnboundedReceiver<Job>,
    ending: Arc<Ending>,
    metrics: Arc<Metrics>,
) {
    let _over: DropGuard = ending.is_over.clone().drop_guard();
    let ended = {
        let run = store.run_concurrent(async |accessor| {
            let mut answers = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(answered) = answers.next(), if !answers.is_empty() => {
                        let answered: wasmtime::Result<()> = answered;
                        answered?;
                    }
                    job = queue.recv() => match job {
                        Some(Job { request, head, taken }) => answers.push(async {
                            wasi03::call(&service, accessor, request, head).await?.taken.cancelled().await;
                            let _ = taken.send(accessor.with(|mut store| store.data_mut().limiter().memory()));
                            Ok(())
                        }),
                        None => break,
                    },
                }
            }
            let afterwork = poll_fn(|context| accessor.poll_no_interesting_tasks(context));
            let _ = tokio::time::timeout(AFTERWORK, afterwork).await;
            Ok(())
        });
        let mut run = pin!(run);
        poll_fn(|context| BusyTime::new(&metrics).turn(|| run.as_mut().poll(context))).await
    };
    if let Err(error) = ended.and_then(|ended| ended) {
        let error = failure(error, store.data().limiter());
        *ending.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::ComponentInfo;

    const REUSE: Reuse = Reuse { requests: 3, concurrency: 2, idle: Duration::ZERO, memory: 100 };

    fn instances() -> Arc<SharedInstances> {
        let component = ComponentInfo { digest: String::new(), name: String::new(), world: String::new() };
        SharedInstances::new(REUSE, Metrics::new(component))
    }

    /// A seat in a new instance, whose driver runs until it is aborted, and the requests that it is given.
    fn open(instances: &Arc<SharedInstances>) -> (Seat, mpsc::UnboundedReceiver<Job>) {
        let (jobs, queue) = mpsc::unbounded_channel();
        let driver = tokio::spawn(std::future::pending::<()>()).abort_handle();
        (instances.add(jobs, Arc::default(), driver), queue)
    }

    fn retired(instances: &SharedInstances) -> Vec<String> {
        let text = instances.metrics.open_metrics();
        let lines = text.lines().filter(|line| line.contains("instances_retired_total{"));
        lines.filter_map(|line| Some(line.split("reason=\"").nth(1)?.split('"').next()?.to_owned())).collect()
    }

    /// A seat is left after its response was taken, with this much memory in use.
    fn leave(mut seat: Seat, memory: usize) {
        seat.answered = Some(memory);
    }

    #[tokio::test]
    async fn an_instance_has_as_many_requests_at_a_time_and_in_all_as_it_may() {
        let instances = instances();
        let (first, _queue) = open(&instances);
        let second = instances.seat().expect("there is one thread, and room for a second");
        assert!(instances.seat().is_none(), "two at a time");
        leave(first, 1);
        let third = instances.seat().expect("room again");
        leave(second, 1);
        assert!(instances.seat().is_none(), "three in all");
        assert!(retired(&instances).is_empty(), "one is still answered");
        leave(third, 1);
        assert_eq!(retired(&instances), ["requests"]);
    }

    #[tokio::test]
    async fn one_that_grew_too_large_or_failed_takes_no_other_request() {
        let instances = instances();
        let (large, _large_queue) = open(&instances);
        leave(large, 101);
        assert!(instances.seat().is_none());
        assert_eq!(retired(&instances), ["memory"]);
        let (failed, _failed_queue) = open(&instances);
        let driver = instances.lock()[0].driver.clone();
        drop(failed);
        tokio::task::yield_now().await;
        assert!(instances.seat().is_none() && driver.is_finished(), "what failed is aborted");
        let (gone, queue) = open(&instances);
        drop(queue); // its driver has ended, and the requests that it answers do not know it yet
        assert!(instances.seat().is_none());
        drop(gone);
    }

    #[tokio::test]
    async fn one_that_waits_too_long_is_retired() {
        let instances = instances();
        let (seat, _queue) = open(&instances);
        instances.retire_old();
        assert!(retired(&instances).is_empty(), "it works");
        leave(seat, 1);
        instances.retire_old();
        assert_eq!(retired(&instances), ["idle"]);
    }
}
