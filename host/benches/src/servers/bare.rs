//! The least that a fresh sandbox costs: hyper and Wasmtime in a hundred lines, on the guard's own machine. It serves a
//! component that `taffrail compile` has compiled, a fresh instance for each request from the same pool, on one
//! port, and has none of the host's limits, metrics, ids, deadlines and drains. It is there for small bodies alone: a
//! guest runs to its end before its response is sent.
//!
//! Native hyper is no measure across machines: its cost is the kernel's, Taffrail's is that of Wasmtime's own code, and CPUs
//! differ in the two by a factor of two. This one does what Taffrail does, so the ratio is the host's alone.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, WasmBacktraceDetails};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
    WasiHttpView,
};
use wasmtime_wasi_io::IoView;

/// What follows the machine code in a file of `taffrail compile`: facts, their length (4 bytes), a SHA-256, a mark.
const LENGTH: usize = 4;
const HASH_AND_MARK: usize = 32 + 16;

/// As the host sets them (`guest/engine.rs`): the code was compiled for these, and the pool is to be as good.
const WASM_STACK: usize = 512 * 1024;
const FIBER_STACK: usize = 2 * 1024 * 1024;
const EPOCH_TICK: Duration = Duration::from_millis(2);
const GUESTS: u32 = 64;
const KEEP_RESIDENT: usize = 1280 * 1024;
const KEEP_STACK: usize = 64 * 1024;

struct State {
    table: ResourceTable,
    wasi: Option<WasiCtx>,
    http: WasiHttpCtx,
    hooks: NoCalls,
    config: Arc<WasiConfigVariables>,
}

/// The guest calls nobody.
struct NoCalls;

type Sent = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for NoCalls {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Sent,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Sent), Error>> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| WasiCtx::builder().build());
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl IoView for State {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

struct Guest {
    engine: Engine,
    linked: ProxyPre<State>,
    config: Arc<WasiConfigVariables>,
}

/// Serves the compiled component until the process is ended.
///
/// # Errors
/// When the file is not one that the host of the same version has compiled, or the port cannot be had.
pub fn serve(listen: SocketAddr, compiled: &Path, tokens: &str) -> anyhow::Result<()> {
    let guest = Arc::new(load(compiled, tokens)?);
    let engine = guest.engine.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(EPOCH_TICK);
            engine.increment_epoch();
        }
    });
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        eprintln!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(connection(stream, guest.clone()));
        }
    })
}

fn load(compiled: &Path, tokens: &str) -> anyhow::Result<Guest> {
    let file = std::fs::read(compiled).with_context(|| format!("{} cannot be read", compiled.display()))?;
    let code = code(&file).with_context(|| format!("{} is not of `taffrail compile`", compiled.display()))?;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(GUESTS)
        .total_core_instances(GUESTS * 64)
        .total_memories(GUESTS * 2)
        .total_tables(GUESTS * 8)
        .total_stacks(GUESTS)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(16 * 1024)
        .async_stack_keep_resident(KEEP_STACK);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable);
    let engine = Engine::new(&config)?;
    #[allow(unsafe_code, reason = "the code is what the binary under test has compiled a moment ago")]
    let component = unsafe { Component::deserialize(&engine, code)? };
    let mut linker = Linker::<State>::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true); // without it every body would ask for a whole `WasiCtx`
    wasmtime_wasi_io::add_to_linker_async(&mut linker)?;
    linker.allow_shadowing(false);
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, |state: &mut State| WasiConfig::from(&*state.config))?;
    let linked = ProxyPre::new(linker.instantiate_pre(&component)?)?;
    let config = WasiConfigVariables::from_iter([("auth-tokens", tokens)]);
    Ok(Guest { engine, linked, config: Arc::new(config) })
}

/// The machine code in a file of `taffrail compile`.
fn code(file: &[u8]) -> Option<&[u8]> {
    let rest = file.get(..file.len().checked_sub(HASH_AND_MARK)?)?;
    let (rest, length) = rest.split_last_chunk::<LENGTH>()?;
    rest.get(..rest.len().checked_sub(u32::from_le_bytes(*length) as usize)?)
}

async fn connection(stream: TcpStream, guest: Arc<Guest>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| respond(guest.clone(), request));
    // An error ends the connection, which the load generator counts.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(guest: Arc<Guest>, request: Request<Incoming>) -> anyhow::Result<Response<WasiBody>> {
    let state = State {
        table: ResourceTable::new(),
        wasi: None,
        http: WasiHttpCtx::new(),
        hooks: NoCalls,
        config: guest.config.clone(),
    };
    let mut store = Store::new(&guest.engine, state);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    let proxy: Proxy = guest.linked.instantiate_async(&mut store).await?;
    let (head, response) = oneshot::channel();
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request)?;
    let outparam = http.new_response_outparam_from_callback(move |response| {
        let _ = head.send(response);
    })?;
    proxy.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await?;
    response.await?.map_err(|code| anyhow!("the guest reports {code:?}"))
}
