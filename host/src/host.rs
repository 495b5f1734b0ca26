//! The host: started in order, drained without losing a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use crate::admin::Admin;
use crate::capacity::{self, Machine};
use crate::config::Config;
use crate::guest::{Guest, Interrupt};
use crate::lifecycle::{Lifecycle, Phase, Step};
use crate::request::Requests;
use crate::server::{self, Server, ServerHandle};
use crate::telemetry::spans::Spans;

/// Guests that the pool has room for beyond the limit of requests in flight: the probe at start, and stores whose memory is
/// still being given back.
const SPARE_GUESTS: u32 = 8;

/// The log's target of what befalls the process as a whole.
const TARGET: &str = env!("CARGO_PKG_NAME");

/// How often the log says that a large component is still being compiled.
const PROGRESS: Duration = Duration::from_secs(5);

/// A running host. Ends when it is drained.
#[derive(Debug)]
pub struct Host {
    address: SocketAddr,
    admin: Admin,
    lifecycle: Lifecycle,
    requests: Arc<Requests>,
    server: ServerHandle,
    spans: Option<Arc<Spans>>,
    drain_delay: Duration,
    drain_timeout: Duration,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were still in flight when the time was up, and were cut.
    pub cut: usize,
}

impl Host {
    /// Starts the host: admin listener first, then the component, the traffic port last. Returns when it is ready.
    ///
    /// # Errors
    /// One message that says what is wrong and what to do. The traffic port is not bound then.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let lifecycle = Lifecycle::default();
        let admin = Admin::start(config.admin_listen, lifecycle.clone(), Handle::current().metrics())?;
        tracing::info!(target: TARGET, admin = %admin.address(), "starting");
        config.warnings.iter().for_each(|warning| tracing::warn!(target: TARGET, "{warning}"));

        let (settings, limits) = (config.guest.clone(), config.limits);
        let pool = limits.max_in_flight.unwrap_or(capacity::IN_FLIGHT) + SPARE_GUESTS;
        let reuse = settings.reuse;
        let machine = Machine::detect();
        let interrupt = Interrupt::default();
        let _interrupted_when_dropped = interrupt.on_drop(); // a start that is given up leaves no compiler behind
        let load = move || Guest::load(&settings, pool, machine.memory, &interrupt);
        let mut loading = tokio::task::spawn_blocking(load);
        let started = Instant::now();
        let mut guest = loop {
            match timeout(PROGRESS, &mut loading).await {
                Ok(loaded) => break loaded.context("the compiler failed")??,
                Err(_) => {
                    tracing::info!(target: TARGET, seconds = started.elapsed().as_secs(), "still compiling the component")
                }
            }
        };
        let version = serde_json::json!({ "host": env!("CARGO_PKG_VERSION"), "component": guest.revision().json() });
        admin.publish(version, guest.metrics().clone());
        lifecycle.advance(Phase::Starting(Step::Instantiate));
        let initial_memory = guest.probe().await?;
        let machine = Machine::detect();
        let capacity = machine.capacity(&limits, initial_memory);
        guest.set_memory(capacity.guest_memory);
        if reuse.requests > 1 && initial_memory > reuse.memory as u64 {
            tracing::warn!(
            target: TARGET,
                initial_memory,
                instance_memory = reuse.memory,
                "no instance will answer a second request: each starts with more memory than --instance-memory"
            );
        }

        lifecycle.advance(Phase::Starting(Step::Listen));
        let (allocator, digest) = (guest.allocator(), guest.revision().digest.clone());
        let (application, version) = (config.application.clone(), guest.revision().short_digest().to_owned());
        let metrics = guest.metrics().clone();
        // Reads a file, perhaps from where nobody answers: not on the thread that looks after the signals.
        let spans = tokio::task::spawn_blocking(move || Spans::from_environment(&application, &version, metrics));
        let spans = spans.await.context("set up the traces")??;
        let (in_flight, phase) = (capacity.in_flight, lifecycle.clone());
        let guest = Arc::new(guest);
        guest.retire_idle_instances();
        let requests = Arc::new(Requests::new(guest, phase, &config, in_flight, spans.clone()));
        let listener =
            server::bind(config.listen).with_context(|| format!("cannot listen on {} (--listen)", config.listen))?;
        let address = listener.local_addr()?;
        let (server, handle) = Server::new(requests.clone(), limits, capacity.connections, capacity.unsent);
        tokio::spawn(server.run(listener));
        lifecycle.advance(Phase::Ready);
        tracing::info!(
            target: TARGET,
            version = env!("CARGO_PKG_VERSION"),
            listen = %address,
            admin = %admin.address(),
            digest,
            workers = Handle::current().metrics().num_workers(),
            allocator = allocator.name(),
            memory = machine.memory,
            memory_source = machine.memory_source,
            max_in_flight = capacity.in_flight,
            max_connections = capacity.connections,
            connection_cost = capacity.connection_cost,
            guest_memory = capacity.guest_memory,
            initial_memory,
            descriptors = machine.descriptors,
            "ready"
        );
        Ok(Self {
            address,
            admin,
            lifecycle,
            requests,
            server: handle,
            spans,
            drain_delay: config.drain_delay,
            drain_timeout: config.drain_timeout,
        })
    }

    /// Where the traffic goes.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the probes go.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Ends without losing a request: not ready at once, serving as usual for the delay, then no new connection, and up
    /// to the timeout for what is in flight.
    pub async fn drain(mut self) -> Drained {
        self.lifecycle.advance(Phase::Draining);
        tracing::info!(target: TARGET, delay = ?self.drain_delay, timeout = ?self.drain_timeout, "draining");
        sleep(self.drain_delay).await;
        self.server.close();
        let finished = async {
            self.server.closed().await;
            self.requests.finished().await; // guests that go on after their response
        };
        let cut = match timeout(self.drain_timeout, finished).await {
            Ok(()) => 0,
            Err(_) => self.requests.in_flight() + self.server.unsent(),
        };
        if let Some(spans) = self.spans.take() {
            spans.finish().await;
        }
        if cut == 0 {
            tracing::info!(target: TARGET, "drained: nothing was cut");
        } else {
            tracing::warn!(target: TARGET, cut, "drained: requests were cut, because --drain-timeout was over");
        }
        Drained { cut }
    }
}

/// A host that is not drained accepts no more either, and lets its component go with the last connection.
impl Drop for Host {
    fn drop(&mut self) {
        self.server.close();
    }
}
