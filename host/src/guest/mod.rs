//! The guest: a component that is loaded once and run in a fresh sandbox for every request, or for as many as
//! `--instance-reuse` says. This folder alone knows wasmtime.
//!
//! No task is spawned for a request. The task of the connection polls the guest's future until the guest sets its
//! response; if the guest is not finished then, the response body owns the rest of that future ([`run::Run`]) and polls it
//! whenever hyper polls the body. So backpressure is hyper's own, and a client that leaves drops the body and with it
//! the store, which stops the guest wherever it is.
//!
//! WASI 0.2 and 0.3 differ in one file each ([`wasi02`], [`wasi03`]); everything around them is the same for both.

mod body;
mod engine;
mod failure;
mod held;
mod instance;
mod limits;
mod load;
mod os_error;
mod outbound;
mod pool;
mod response;
mod run;
mod shared;
mod stdio;
mod store;
mod wasi02;
mod wasi03;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hyper::{Method, Request, Response};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use wasmtime::Store;

use crate::config::GuestSettings;
use crate::error::Error;
use crate::http::request_body::{BodyReport, RequestBody};
use crate::http::trace_context::TraceParent;
use crate::telemetry::metrics::{ComponentInfo, Metrics};
use crate::telemetry::rate_limit::RateLimit;
use crate::telemetry::spans::{GuestTrace, Span};
use engine::{Allocator, Engines};
use failure::failure;
use instance::{Instance, Linked};
use limits::{Budget, Reclaim};
use load::{Revision, Source};
use outbound::OutboundClient;
use pool::{InstancePool, Lease};
use response::Head;
use run::{BusyTime, Run};
use shared::{Seat, SharedInstances};
use store::{RequestScope, State, StoreTemplate};

pub(crate) use body::GuestBody;
pub(crate) use load::{Interrupt, STANDARD_STREAM, precompile};
pub use store::OFFERED;

/// How long an instantiation may take at start. Runtimes of scripting languages take a second; nothing honest takes this.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// A loaded component, ready to be run.
pub(crate) struct Guest {
    engines: Engines,
    linked: Linked,
    /// The same on the engine whose slots are warm, and those of its guests that may still start.
    warm: Option<(Linked, Arc<Semaphore>)>,
    revision: Revision,
    template: StoreTemplate,
    pool: Arc<InstancePool>,
    /// Where an instance may answer several requests at the same time.
    shared_instances: Option<Arc<SharedInstances>>,
}

/// What the host knows of a request when it calls the guest.
#[derive(Debug)]
pub(crate) struct RequestContext<G> {
    /// The id that the guest's printed lines are logged with.
    pub(crate) request_id: Arc<str>,
    /// The trace that it is told of and that its calls go on.
    pub(crate) trace: GuestTrace,
    /// The span of the guest's run, where the request is traced.
    pub(crate) span: Option<Span>,
    /// When everything must be over.
    pub(crate) deadline: Instant,
    /// Lives until the guest has ended, which may be after its response.
    pub(crate) guard: G,
}

impl Guest {
    /// Reads, compiles and links a component; `guests` is how many may run at the same time, `memory` what the machine has,
    /// in bytes. Blocks the thread; `interrupt` ends the compiler that it waits for.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the file, or with the machine.
    pub(crate) fn load(
        settings: &GuestSettings,
        guests: u32,
        memory: u64,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let limits = settings.limits;
        let source = Source::read(settings, memory)?;
        let concurrent = source.is_concurrent();
        source.announce();
        let engines = engine::start(guests, &limits, concurrent)?;
        let started = std::time::Instant::now();
        let (revision, linked, warm) = source.load(&engines, interrupt)?;
        let warm = warm.map(|linked| (linked, Arc::new(Semaphore::new(engine::warm_guests() as usize))));
        tracing::info!(
            file = %revision.file.display(),
            digest = revision.digest,
            size = revision.size,
            world = revision.world,
            seconds = started.elapsed().as_secs_f64(),
            "loaded the component"
        );
        let config = Arc::new(settings.config.0.iter().map(|(key, value)| (key.clone(), value.clone())).collect());
        let metrics = Metrics::new(ComponentInfo {
            digest: revision.digest.clone(),
            name: revision.file.file_stem().map_or_else(String::new, |stem| stem.display().to_string()),
            world: revision.world.clone(),
        });
        let log_rate = Arc::new(RateLimit::new(limits.log_rate));
        let outbound = OutboundClient::new(settings.outbound.clone())?;
        let environment = settings.environment.clone();
        let pool = InstancePool::new(settings.reuse, metrics.clone());
        let budget = budget(limits.memory, &pool);
        let shared_instances = match &linked {
            Linked::Wasi03(_) if settings.reuse.concurrency > 1 => {
                Some(SharedInstances::new(settings.reuse, metrics.clone()))
            }
            Linked::Wasi02(_) if settings.reuse.concurrency > 1 => {
                bail!(
                    "{} is a component of WASI 0.2, which answers one request at a time: leave --instance-concurrency out",
                    revision.file.display()
                )
            }
            _ => None,
        };
        let fields = store::fields_size(settings.response_header);
        let template =
            StoreTemplate { config, environment, limits, fields, budget, log_rate, outbound, metrics, concurrent };
        Ok(Self { engines, linked, warm, revision, template, pool, shared_instances })
    }

    /// Sets the linear memory for all guests together, in bytes. Until then there is enough for one.
    pub(crate) fn set_memory(&mut self, bytes: u64) {
        self.template.budget = budget(usize::try_from(bytes).unwrap_or(usize::MAX), &self.pool);
    }

    /// Instantiates the component once and throws the instance away: proof that its start works. Returns the linear memory
    /// that it took, in bytes.
    ///
    /// # Errors
    /// Why the component cannot be instantiated.
    pub(crate) async fn probe(&self) -> anyhow::Result<u64> {
        let (trace, _) = GuestTrace::new(TraceParent::random(), None);
        let scope = RequestScope { request_id: Arc::from("start"), trace, report: BodyReport::default() };
        let (linked, store) = self.place(&scope);
        let instance = timeout(PROBE_TIMEOUT, Instance::start(linked, store)).await;
        let cannot = || format!("{} links, but its instantiation fails", self.revision.file.display());
        let instance = instance
            .map_err(|_| anyhow!("not done after {PROBE_TIMEOUT:?}"))
            .and_then(|started| started.map_err(|(error, _)| error.into()))
            .with_context(cannot)?;
        Ok(instance.memory() as u64)
    }

    /// What is known of the component.
    pub(crate) fn revision(&self) -> &Revision {
        &self.revision
    }

    /// The metrics of this component, and of the host that serves it.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.template.metrics
    }

    /// Where the memory of its instances comes from.
    pub(crate) fn allocator(&self) -> Allocator {
        self.engines.allocator
    }

    /// Ends instances that have waited too long for a request, for as long as anybody holds the guest.
    pub(crate) fn retire_idle_instances(self: &Arc<Self>) {
        let Some(period) = self.pool.period() else { return };
        let guest = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(guest) = guest.upgrade() {
                guest.pool.retire_old();
                if let Some(instances) = &guest.shared_instances {
                    instances.retire_old();
                }
                drop(guest);
                tokio::time::sleep(period).await;
            }
        });
    }

    /// Runs the component for one request, in a sandbox of its own unless instances are reused. Returns as soon as the
    /// guest sets its response; the body carries the rest.
    ///
    /// # Errors
    /// How the guest, or the request's body, failed before there was a response.
    pub(crate) async fn handle<G: Send + 'static>(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        report: BodyReport,
        context: RequestContext<G>,
    ) -> Result<Response<GuestBody>, Error> {
        let head_only = request.method() == Method::HEAD;
        let (sender, mut receiver) = oneshot::channel();
        let mut run = self.start(request, report.clone(), sender, context);
        // The streams of WASI 0.3 are asked only when there is something, those of 0.2 whenever the guest has a turn.
        let asks_again = matches!(self.linked, Linked::Wasi02(_));
        let mut unset = false; // the guest dropped its response-outparam
        let head = poll_fn(|context| {
            report.begin_turn(asks_again);
            let ended = run.poll(context);
            if report.is_failed() {
                return Poll::Ready(Err(None)); // the client's fault outweighs what the guest makes of it
            }
            match ended {
                Poll::Ready(Ok(())) if unset => Poll::Ready(Err(Some(Error::GuestNoResponse))),
                Poll::Ready(Ok(())) => Poll::Ready(receiver.try_recv().map_err(|_| Some(Error::GuestNoResponse))),
                Poll::Ready(Err(Error::GuestDeadline)) if report.is_waiting() => {
                    Poll::Ready(Err(Some(Error::ClientDeadline)))
                }
                Poll::Ready(Err(error)) => match receiver.try_recv() {
                    // Head and all: nothing that the guest does afterwards can spoil it.
                    Ok(Ok(response)) if response.is_bodiless(head_only) => {
                        run.failed_late(&error);
                        Poll::Ready(Ok(Ok(response)))
                    }
                    _ => Poll::Ready(Err(Some(error))),
                },
                Poll::Pending if unset => Poll::Pending,
                Poll::Pending => match Pin::new(&mut receiver).poll(context) {
                    Poll::Ready(Ok(head)) => Poll::Ready(Ok(head)),
                    Poll::Ready(Err(_)) => {
                        unset = true;
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                },
            }
        })
        .await;
        let head = match head {
            Ok(head) => head,
            Err(Some(error)) => return Err(error),
            Err(None) => {
                drop(run); // with the guest goes its half of the request body
                return Err(report.take_error());
            }
        };
        match head {
            Ok(response) => {
                let responded = GuestBody::respond(response, run, report.clone(), head_only).await;
                responded.map_err(|error| if report.is_failed() { report.take_error() } else { error })
            }
            Err(code) => {
                run.body_taken();
                Err(Error::GuestErrorCode(code))
            }
        }
    }

    fn start<G: Send + 'static>(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        report: BodyReport,
        head: oneshot::Sender<Head>,
        context: RequestContext<G>,
    ) -> Run {
        let guest = self.clone();
        let RequestContext { request_id, trace, mut span, deadline, guard } = context;
        Run::new(async move {
            let mut busy = BusyTime::new(guest.metrics());
            let ended = {
                let run = async {
                    if let Some(instances) = &guest.shared_instances {
                        return guest.seat(instances).await?.run(request, head).await.map(|()| None);
                    }
                    let lease = guest.lease(RequestScope { request_id, trace, report }).await?;
                    lease.run(request, head).await
                };
                let mut run = pin!(timeout_at(deadline, run));
                poll_fn(|context| busy.turn(|| run.as_mut().poll(context))).await
            };
            drop(busy);
            let ended = ended.unwrap_or(Err(Error::GuestDeadline));
            if let (Err(error), Some(span)) = (&ended, &mut span) {
                span.fail(error.reason());
            }
            drop((span, guard));
            ended
        })
        .counted(self.metrics().clone())
    }

    /// An instance that has served others, or a fresh one.
    async fn lease(&self, scope: RequestScope) -> Result<Lease, Error> {
        match self.pool.take(&scope) {
            Some(lease) => Ok(lease),
            None => Ok(self.pool.lease(self.instantiate(&scope).await?)),
        }
    }

    /// A place in an instance that others use too.
    async fn seat(&self, instances: &Arc<SharedInstances>) -> Result<Seat, Error> {
        if let Some(seat) = instances.seat() {
            return Ok(seat);
        }
        let instance = self.instantiate(&RequestScope::several()).await?;
        let (service, store) = instance.into_service().ok_or_else(|| Error::HostInternal("no service".to_owned()))?;
        Ok(instances.open(service, store))
    }

    /// A store for a guest, on the engine whose slots are warm if it has one to give.
    fn place(&self, scope: &RequestScope) -> (&Linked, Store<State>) {
        let warm = self.warm.as_ref().zip(self.engines.warm.as_ref());
        let warm =
            warm.and_then(|((linked, slots), engine)| Some((linked, engine, slots.clone().try_acquire_owned().ok()?)));
        match warm {
            Some((linked, engine, slot)) => (linked, store::new(engine, &self.template, scope, Some(slot))),
            None => (&self.linked, store::new(&self.engines.all, &self.template, scope, None)),
        }
    }

    async fn instantiate(&self, scope: &RequestScope) -> Result<Instance, Error> {
        let started = std::time::Instant::now();
        let (linked, store) = self.place(scope);
        match Instance::start(linked, store).await {
            Ok(instance) => {
                self.metrics().instantiated(started.elapsed());
                Ok(instance)
            }
            Err((error, store)) => Err(failure(error, store.data().limiter())),
        }
    }
}

/// A budget of so many bytes, to which instances that wait give theirs back.
fn budget(bytes: usize, pool: &Arc<InstancePool>) -> Arc<Budget> {
    let reclaim: Arc<dyn Reclaim> = pool.clone();
    Budget::new(bytes, Arc::downgrade(&reclaim))
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("revision", &self.revision).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GuestLimits, OutboundLimits, OutboundSettings, Reuse};

    fn scope() -> RequestScope {
        RequestScope::several()
    }

    /// Instances that wait give their memory to those that work, and no guest gets more than there is.
    #[tokio::test]
    async fn memory_that_waits_is_there_for_those_that_work() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let component = wat::parse_str(include_str!("../../tests/foreign/by_hand.wat")).unwrap();
        std::fs::write(file.path(), component).unwrap();
        let minute = Duration::from_secs(60);
        let settings = GuestSettings {
            component: file.path().to_owned(),
            allow_precompiled: false,
            compiler: None,
            fallback: None,
            reuse: Reuse { requests: 100, concurrency: 1, idle: minute, memory: 1 << 25 },
            config: Default::default(),
            environment: Arc::default(),
            limits: GuestLimits {
                memory: 1 << 27,
                table_elements: 1000,
                handles: 100,
                call_size: 1 << 20,
                log_rate: 1,
            },
            response_header: 1 << 16,
            outbound: OutboundSettings {
                allowed: Vec::new(),
                networks: Vec::new(),
                ca_file: None,
                limits: OutboundLimits {
                    connect_timeout: minute,
                    first_byte_timeout: minute,
                    between_bytes_timeout: minute,
                    max_in_flight: 1,
                    max_per_request: 1,
                },
            },
        };
        let mut guest = Guest::load(&settings, 8, u64::MAX, &Interrupt::default()).unwrap();
        let one = guest.probe().await.unwrap();
        guest.set_memory(3 * one);
        let waiting = [guest.lease(scope()).await.unwrap(), guest.lease(scope()).await.unwrap()];
        waiting.into_iter().for_each(Lease::keep);
        let mut working = Vec::new();
        for _ in 0..3 {
            working.push(guest.instantiate(&scope()).await.unwrap());
        }
        assert!(guest.pool.take(&scope()).is_none(), "none waits any more");
        let refused = guest.instantiate(&scope()).await.unwrap_err();
        assert_eq!(refused.reason(), "host_out_of_memory");
    }
}
