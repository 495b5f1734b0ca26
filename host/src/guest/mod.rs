//! The guest: a component that is loaded once and run in a fresh sandbox for every request, or for as many as
//! `--instance-reuse` says. This folder and `outbound.rs` are the only places that know wasmtime.
//!
//! No task is spawned for a request. The task of the connection polls the guest's future until the guest sets its
//! response; if the guest is not finished then, the response body owns the rest of that future ([`run::Run`]) and polls it
//! whenever hyper polls the body. So backpressure is hyper's own, and a client that leaves drops the body and with it
//! the store, which stops the guest wherever it is.
//!
//! WASI 0.2 and 0.3 differ in one file each ([`wasi02`], [`wasi03`]); everything around them is the same for both.

mod compiler;
mod engine;
mod failure;
mod instance;
mod limits;
mod precompiled;
mod reply;
mod revision;
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
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use wasmtime::Engine;

pub use engine::Allocator;
pub use reply::GuestBody;
pub use revision::{Revision, precompile};
pub use store::OFFERED;

use crate::body::{BodyReport, RequestBody};
use crate::error::Error;
use crate::logs::RateLimit;
use crate::metrics::{ComponentInfo, Metrics};
use crate::outbound::Servers;
use crate::settings::GuestSettings;
use crate::spans::{GuestTrace, Span};
use crate::trace::Place;
use failure::failure;
use instance::{Idle, Instance, Lease, Linked};
use limits::Budget;
use reply::Head;
use run::{Busy, Run};
use shared::{Seat, SharedInstances};
use store::{Owner, Shared};

/// How long an instantiation may take at start. Runtimes of scripting languages take a second; nothing honest takes this.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// A loaded component, ready to be run.
pub struct Guest {
    engine: Engine,
    allocator: Allocator,
    linked: Linked,
    revision: Revision,
    shared: Shared,
    idle: Arc<Idle>,
    /// Where an instance may answer several requests at the same time.
    shared_instances: Option<Arc<SharedInstances>>,
}

/// What the host knows of a request when it calls the guest.
#[derive(Debug)]
pub struct Call<G> {
    /// For the lines that the guest prints.
    pub request_id: Arc<str>,
    /// Its part of the trace.
    pub trace: GuestTrace,
    /// Of the run, where it is traced.
    pub span: Option<Span>,
    /// When everything must be over.
    pub deadline: Instant,
    /// Lives until the guest has ended, which may be after its response.
    pub guard: G,
}

impl Guest {
    /// Reads, compiles and links a component; `guests` is how many may run at the same time, `memory` what the machine has,
    /// in bytes. Blocks the thread.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the file, or with the machine.
    pub fn load(settings: &GuestSettings, guests: u32, memory: u64) -> anyhow::Result<Self> {
        let limits = settings.limits;
        let source = revision::Source::read(settings)?;
        let concurrent = source.is_concurrent();
        source.announce(memory);
        let (engine, allocator) = engine::start(guests, &limits, concurrent)?;
        let started = std::time::Instant::now();
        let (revision, linked) = source.load(&engine)?;
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
        let servers = Servers::new(settings.outbound.clone())?;
        let environment = settings.environment.clone();
        let idle = Idle::new(settings.reuse, metrics.clone());
        let budget = Budget::new(limits.memory, &idle);
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
        let shared = Shared { config, environment, limits, budget, log_rate, servers, metrics, concurrent };
        Ok(Self { engine, allocator, linked, revision, shared, idle, shared_instances })
    }

    /// Sets the linear memory for all guests together, in bytes. Until then there is enough for one.
    pub fn set_memory(&mut self, bytes: u64) {
        self.shared.budget = Budget::new(usize::try_from(bytes).unwrap_or(usize::MAX), &self.idle);
    }

    /// Instantiates the component once and throws the instance away: proof that its start works. Returns the linear memory
    /// that it took, in bytes.
    ///
    /// # Errors
    /// Why the component cannot be instantiated.
    pub async fn probe(&self) -> anyhow::Result<u64> {
        let (trace, _) = GuestTrace::new(Place::random(), None);
        let owner = Owner { request_id: Arc::from("start"), trace, report: BodyReport::default() };
        let store = store::new(&self.engine, &self.shared, &owner);
        let instance = timeout(PROBE_TIMEOUT, Instance::start(&self.linked, store)).await;
        let cannot = || format!("{} links, but its instantiation fails", self.revision.file.display());
        let instance = instance
            .map_err(|_| anyhow!("not done after {PROBE_TIMEOUT:?}"))
            .and_then(|started| started.map_err(|(error, _)| error.into()))
            .with_context(cannot)?;
        Ok(instance.memory() as u64)
    }

    /// What is known of the component.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// The metrics of this component, and of the host that serves it.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Where the memory of its instances comes from.
    pub fn allocator(&self) -> Allocator {
        self.allocator
    }

    /// Ends instances that have waited too long for a request, for as long as anybody holds the guest.
    pub fn retire_idle_instances(self: &Arc<Self>) {
        let Some(period) = self.idle.period() else { return };
        let guest = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(guest) = guest.upgrade() {
                guest.idle.retire_old();
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
    pub async fn handle<G: Send + 'static>(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        report: BodyReport,
        call: Call<G>,
    ) -> Result<Response<GuestBody>, Error> {
        let head_only = request.method() == Method::HEAD;
        let (sender, mut receiver) = oneshot::channel();
        let mut run = self.start(request, report.clone(), sender, call);
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
                Poll::Ready(Err(error)) => Poll::Ready(Err(Some(error))),
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
            Ok(reply) => {
                let responded = reply.respond(run, report.clone(), head_only).await;
                responded.map_err(|error| if report.is_failed() { report.take_error() } else { error })
            }
            Err(code) => {
                run.body_taken();
                Err(Error::GuestError(code))
            }
        }
    }

    fn start<G: Send + 'static>(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        report: BodyReport,
        head: oneshot::Sender<Head>,
        call: Call<G>,
    ) -> Run {
        let guest = self.clone();
        let Call { request_id, trace, mut span, deadline, guard } = call;
        Run::new(async move {
            let mut busy = Busy::new(guest.metrics());
            let ended = {
                let run = async {
                    if let Some(instances) = &guest.shared_instances {
                        return guest.seat(instances).await?.run(request, head).await.map(|()| None);
                    }
                    let lease = guest.lease(Owner { request_id, trace, report }).await?;
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
    }

    /// An instance that has served others, or a fresh one.
    async fn lease(&self, owner: Owner) -> Result<Lease, Error> {
        match self.idle.take(&owner) {
            Some(lease) => Ok(lease),
            None => Ok(self.idle.lease(self.instantiate(&owner).await?)),
        }
    }

    /// A place in an instance that others use too.
    async fn seat(&self, instances: &Arc<SharedInstances>) -> Result<Seat, Error> {
        if let Some(seat) = instances.seat() {
            return Ok(seat);
        }
        let instance = self.instantiate(&Owner::nobody()).await?;
        let (service, store) = instance.into_service().ok_or_else(|| Error::HostInternal("no service".to_owned()))?;
        Ok(instances.open(service, store))
    }

    async fn instantiate(&self, owner: &Owner) -> Result<Instance, Error> {
        let started = std::time::Instant::now();
        let store = store::new(&self.engine, &self.shared, owner);
        match Instance::start(&self.linked, store).await {
            Ok(instance) => {
                self.metrics().instantiated(started.elapsed());
                Ok(instance)
            }
            Err((error, store)) => Err(failure(error, store.data().limiter())),
        }
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("revision", &self.revision).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Command, CommandLine};

    fn owner() -> Owner {
        Owner::nobody()
    }

    /// Instances that wait give their memory to those that work, and no guest gets more than there is.
    #[tokio::test]
    async fn memory_that_waits_is_there_for_those_that_work() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let component = wat::parse_str(include_str!("../../tests/foreign/by_hand.wat")).unwrap();
        std::fs::write(file.path(), component).unwrap();
        let line = ["taffrail", "serve", file.path().to_str().unwrap(), "--instance-reuse", "100"];
        let Command::Serve(flags) = <CommandLine as clap::Parser>::try_parse_from(line).unwrap().command else {
            panic!()
        };
        let mut guest = Guest::load(&flags.check().unwrap().guest, 8, u64::MAX).unwrap();
        let one = guest.probe().await.unwrap();
        guest.set_memory(3 * one);
        let waiting = [guest.lease(owner()).await.unwrap(), guest.lease(owner()).await.unwrap()];
        waiting.into_iter().for_each(Lease::keep);
        let mut working = Vec::new();
        for _ in 0..3 {
            working.push(guest.instantiate(&owner()).await.unwrap());
        }
        assert!(guest.idle.take(&owner()).is_none(), "none waits any more");
        let refused = guest.instantiate(&owner()).await.unwrap_err();
        assert_eq!(refused.reason(), "host_out_of_memory");
    }
}
