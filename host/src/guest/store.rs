//! What the host holds for one guest: its own table of resources, and nothing of the machine.

use std::sync::Arc;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::limits::{Budget, Limiter};
use super::stdio::GuestOutput;
use crate::config::GuestLimits;
use crate::logs::RateLimit;
use crate::metrics::Metrics;
use crate::outbound::{Outbound, Servers};
use crate::spans::GuestTrace;
use crate::trace::TraceId;

const WASI_0_2: &str = "0.2.x";
const WASI_CONFIG: &str = "0.2.0-rc.1"; // a draft: no other version is compatible

/// The interfaces that the host offers, each with its versions. Language runtimes import them all, whether or not the
/// program uses them, so all of them link; what is behind them is decided by [`State`]. `tests/suite` links each.
pub const OFFERED: &[(&str, &str)] = &[
    ("wasi:cli/environment", WASI_0_2),
    ("wasi:cli/exit", WASI_0_2),
    ("wasi:cli/stderr", WASI_0_2),
    ("wasi:cli/stdin", WASI_0_2),
    ("wasi:cli/stdout", WASI_0_2),
    ("wasi:cli/terminal-input", WASI_0_2),
    ("wasi:cli/terminal-output", WASI_0_2),
    ("wasi:cli/terminal-stderr", WASI_0_2),
    ("wasi:cli/terminal-stdin", WASI_0_2),
    ("wasi:cli/terminal-stdout", WASI_0_2),
    ("wasi:clocks/monotonic-clock", WASI_0_2),
    ("wasi:clocks/wall-clock", WASI_0_2),
    ("wasi:config/store", WASI_CONFIG),
    ("wasi:filesystem/preopens", WASI_0_2),
    ("wasi:filesystem/types", WASI_0_2),
    ("wasi:http/outgoing-handler", WASI_0_2),
    ("wasi:http/types", WASI_0_2),
    ("wasi:io/error", WASI_0_2),
    ("wasi:io/poll", WASI_0_2),
    ("wasi:io/streams", WASI_0_2),
    ("wasi:random/insecure", WASI_0_2),
    ("wasi:random/insecure-seed", WASI_0_2),
    ("wasi:random/random", WASI_0_2),
    ("wasi:sockets/instance-network", WASI_0_2),
    ("wasi:sockets/ip-name-lookup", WASI_0_2),
    ("wasi:sockets/network", WASI_0_2),
    ("wasi:sockets/tcp", WASI_0_2),
    ("wasi:sockets/tcp-create-socket", WASI_0_2),
    ("wasi:sockets/udp", WASI_0_2),
    ("wasi:sockets/udp-create-socket", WASI_0_2),
];

/// What all stores of a component share.
pub struct Shared {
    pub config: Arc<WasiConfigVariables>,
    pub limits: GuestLimits,
    pub budget: Arc<Budget>,
    pub environment: Arc<[(String, String)]>,
    pub log_rate: Arc<RateLimit>,
    pub servers: Option<Arc<Servers>>,
    pub metrics: Arc<Metrics>,
}

/// The data of one store. No directory is preopened, the environment is what `--env` says, and every socket is refused.
pub struct State {
    table: ResourceTable,
    /// Made when the guest first asks for something of it, which most requests never do.
    wasi: Option<WasiCtx>,
    machine: Machine,
    http: WasiHttpCtx,
    outbound: Outbound,
    config: Arc<WasiConfigVariables>,
    limiter: Limiter,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: self.wasi.get_or_insert_with(|| self.machine.wasi()), table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outbound, table: &mut self.table, ctx: &mut self.http }
    }
}

impl State {
    /// What the guest was refused.
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }
}

/// What a guest sees of the machine.
struct Machine {
    request_id: Arc<str>,
    trace_id: TraceId,
    log_rate: Arc<RateLimit>,
    environment: Arc<[(String, String)]>,
}

impl Machine {
    fn wasi(&self) -> WasiCtx {
        let stream = |name| GuestOutput::new(name, self.request_id.clone(), self.trace_id, self.log_rate.clone());
        WasiCtx::builder()
            .stdout(stream("stdout"))
            .stderr(stream("stderr"))
            .envs(&self.environment)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build()
    }
}

/// A store for one request.
pub fn new(engine: &Engine, shared: &Shared, request_id: &Arc<str>, trace: GuestTrace) -> Store<State> {
    let limits = &shared.limits;
    let machine = Machine {
        request_id: request_id.clone(),
        trace_id: trace.place.trace,
        log_rate: shared.log_rate.clone(),
        environment: shared.environment.clone(),
    };
    let mut table = ResourceTable::new();
    table.set_max_capacity(limits.handles);
    let limiter = Limiter::new(*limits, shared.budget.clone(), shared.metrics.clone());
    let outbound = Outbound::new(shared.servers.clone(), shared.metrics.clone(), trace);
    let state = State {
        table,
        wasi: None,
        machine,
        http: WasiHttpCtx::new(),
        outbound,
        config: shared.config.clone(),
        limiter,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_max_component_handles(limits.handles);
    store.set_hostcall_fuel(limits.call_size);
    // At every tick the guest yields, so that the deadline and a client's leaving are seen.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

/// A linker that offers what [`OFFERED`] lists.
///
/// # Errors
/// When an interface is defined twice, which no component can cause.
pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, |state: &mut State| WasiConfig::from(&*state.config))?;
    Ok(linker)
}
