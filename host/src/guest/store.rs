//! What the host holds for one guest: its own table of resources, and nothing of the machine.

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline, bail};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_io::IoView;

use super::held::Countdown;
use super::limits::{Budget, Limiter};
use super::outbound::{BODY_AHEAD, OutboundClient, OutboundHooks};
use super::stdio::{GuestOutput, Printer};
use crate::config::GuestLimits;
use crate::http::request_body::BodyReport;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::rate_limit::RateLimit;
use crate::telemetry::spans::GuestTrace;

const WASI_0_2: &str = "0.2.x";
const WASI_0_3: &str = "0.3.x"; // for a component that exports or imports something of 0.3
const WASI_CONFIG: &str = "0.2.0-rc.1"; // a draft: no other version is compatible

/// The interfaces that the host offers, each with its versions. Language runtimes import them all, whether or not the
/// program uses them, so all of them link; what is behind them is decided by `State`. `tests/suite` links each.
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
    ("wasi:cli/environment", WASI_0_3),
    ("wasi:cli/exit", WASI_0_3),
    ("wasi:cli/stderr", WASI_0_3),
    ("wasi:cli/stdin", WASI_0_3),
    ("wasi:cli/stdout", WASI_0_3),
    ("wasi:cli/terminal-input", WASI_0_3),
    ("wasi:cli/terminal-output", WASI_0_3),
    ("wasi:cli/terminal-stderr", WASI_0_3),
    ("wasi:cli/terminal-stdin", WASI_0_3),
    ("wasi:cli/terminal-stdout", WASI_0_3),
    ("wasi:cli/types", WASI_0_3),
    ("wasi:clocks/monotonic-clock", WASI_0_3),
    ("wasi:clocks/system-clock", WASI_0_3),
    ("wasi:clocks/types", WASI_0_3),
    ("wasi:filesystem/preopens", WASI_0_3),
    ("wasi:filesystem/types", WASI_0_3),
    ("wasi:http/client", WASI_0_3),
    ("wasi:http/types", WASI_0_3),
    ("wasi:random/insecure", WASI_0_3),
    ("wasi:random/insecure-seed", WASI_0_3),
    ("wasi:random/random", WASI_0_3),
    ("wasi:sockets/ip-name-lookup", WASI_0_3),
    ("wasi:sockets/types", WASI_0_3),
];

/// What Wasmtime counts for a field beside its bytes, and the number of fields for which that is allowed on top of the header
/// that the operator allows: with less, an ordinary header just below the limit would be refused by the other count.
const FIELD_OVERHEAD: usize = size_of::<HeaderName>() + size_of::<HeaderValue>();
const FIELDS: usize = 1000;

/// How large a set of fields a guest may build where its response may have a header of so many bytes.
pub(crate) fn fields_size(response_header: usize) -> usize {
    response_header.saturating_add(FIELDS * FIELD_OVERHEAD)
}

/// So much the host holds for a guest that is not charged to it, in bytes: a request with its answer, of which capacity knows.
const HELD_FREE: usize = BODY_AHEAD + 32 * 1024;

/// What all stores of a component have in common.
pub(crate) struct StoreTemplate {
    pub(crate) config: Arc<WasiConfigVariables>,
    pub(crate) limits: GuestLimits,
    /// How large a set of fields may become, in bytes as Wasmtime counts them.
    pub(crate) fields: usize,
    pub(crate) budget: Arc<Budget>,
    pub(crate) environment: Arc<[(String, String)]>,
    pub(crate) log_rate: Arc<RateLimit>,
    pub(crate) outbound: Option<Arc<OutboundClient>>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether the component needs what WASI 0.3 needs.
    pub(crate) concurrent: bool,
}

/// The request that a guest runs for.
pub(crate) struct RequestScope {
    /// The id that printed lines are logged with.
    pub(crate) request_id: Arc<str>,
    /// The trace that outbound calls go on.
    pub(crate) trace: GuestTrace,
    /// How the request's body fares.
    pub(crate) report: BodyReport,
}

impl RequestScope {
    /// The scope of an instance that answers several requests at the same time: what it prints and calls cannot be told apart.
    pub(crate) fn several() -> Self {
        Self { request_id: Arc::from(""), trace: GuestTrace::none(), report: BodyReport::default() }
    }
}

/// The data of one store. No directory is preopened, the environment is what `--env` says, and every socket is refused.
pub(crate) struct State {
    table: ResourceTable,
    wasi: LazyWasi,
    http: WasiHttpCtx,
    outbound: OutboundHooks,
    config: Arc<WasiConfigVariables>,
    limiter: Limiter,
    held: Countdown,
    report: BodyReport,
    /// Its share of the slots that are warm, if it has one. It goes a moment before the slots do.
    _warm: Option<OwnedSemaphorePermit>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: self.wasi.context(), table: &mut self.table }
    }
}

impl IoView for State {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        if let Some(held) = self.held.count(&mut self.table)
            && !self.limiter.hold(held.saturating_sub(HELD_FREE))
        {
            // Nobody can be told here: no handle and no field more, and at the next tick the guest ends.
            self.table.set_max_capacity(0);
            self.outbound.refuse_fields();
        }
        WasiHttpCtxView { hooks: &mut self.outbound, table: &mut self.table, ctx: &mut self.http }
    }
}

impl State {
    /// What the guest was refused.
    pub(crate) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// The instance now runs for another request.
    pub(crate) fn hand_over(&mut self, scope: &RequestScope) {
        self.wasi.printer = Printer::new(scope.request_id.clone(), scope.trace.parent.trace_id);
        if let Some((_, streams)) = &self.wasi.made {
            streams.iter().for_each(|stream| stream.hand_over(&self.wasi.printer));
        }
        self.outbound.hand_over(scope.trace.clone(), scope.report.clone());
        self.report = scope.report.clone();
        self.limiter.forgive();
    }

    /// The request is over: the rest of a line that it printed belongs to it.
    pub(crate) fn let_go(&mut self) {
        if let Some((_, streams)) = &self.wasi.made {
            streams.iter().for_each(GuestOutput::flush_line);
        }
        self.report = BodyReport::default();
    }
}

/// What a guest sees of the machine: output, environment, clocks. Made when the guest first asks for any of it, which most
/// requests never do.
struct LazyWasi {
    made: Option<(WasiCtx, [GuestOutput; 2])>,
    printer: Printer,
    log_rate: Arc<RateLimit>,
    environment: Arc<[(String, String)]>,
    /// How many random bytes one call may ask for: they lie in the host before the guest has them.
    random: usize,
}

impl LazyWasi {
    fn context(&mut self) -> &mut WasiCtx {
        let Self { made, printer, log_rate, environment, random } = self;
        let (wasi, _) = made.get_or_insert_with(|| {
            let streams = ["stdout", "stderr"].map(|name| GuestOutput::new(name, printer.clone(), log_rate.clone()));
            let wasi = WasiCtx::builder()
                .stdout(streams[0].clone())
                .stderr(streams[1].clone())
                .envs(environment)
                .max_random_size(*random as u64)
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false)
                .build();
            (wasi, streams)
        });
        wasi
    }
}

/// A store for a guest that begins with this request.
pub(crate) fn new(
    engine: &Engine,
    template: &StoreTemplate,
    scope: &RequestScope,
    warm: Option<OwnedSemaphorePermit>,
) -> Store<State> {
    let limits = &template.limits;
    let wasi = LazyWasi {
        made: None,
        printer: Printer::new(scope.request_id.clone(), scope.trace.parent.trace_id),
        log_rate: template.log_rate.clone(),
        environment: template.environment.clone(),
        random: limits.call_size,
    };
    let mut table = ResourceTable::new();
    table.set_max_capacity(limits.handles);
    let limiter = Limiter::new(*limits, template.budget.clone(), template.metrics.clone());
    let (trace, report) = (scope.trace.clone(), scope.report.clone());
    let outbound = OutboundHooks::new(template.outbound.clone(), template.metrics.clone(), trace, report.clone());
    let (config, held) = (template.config.clone(), Countdown::new());
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(template.fields);
    let mut store =
        Store::new(engine, State { table, wasi, http, outbound, config, limiter, held, report, _warm: warm });
    store.limiter(|state| &mut state.limiter);
    store.set_max_component_handles(limits.handles);
    store.set_hostcall_fuel(limits.call_size);
    // At every tick the guest yields, so that the deadline and a client's leaving are seen.
    store.set_epoch_deadline(1);
    let concurrent = template.concurrent;
    store.epoch_deadline_callback(move |context| {
        let state = context.data();
        if state.limiter.is_over() {
            bail!("the host holds more for the guest's handles than the guest may have");
        }
        if concurrent {
            state.report.computes();
        }
        Ok(UpdateDeadline::Yield(1))
    });
    store
}

/// A linker that offers what [`OFFERED`] lists.
///
/// # Errors
/// When an interface is defined twice, which no component can cause.
pub(crate) fn linker(engine: &Engine, concurrent: bool) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    // `wasi:io` needs the table alone: through `WasiView` every body would ask for a whole `WasiCtx`.
    linker.allow_shadowing(true);
    wasmtime_wasi_io::add_to_linker_async(&mut linker)?;
    linker.allow_shadowing(false);
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, |state: &mut State| WasiConfig::from(&*state.config))?;
    if concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}
