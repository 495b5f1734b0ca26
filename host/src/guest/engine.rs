//! The Wasm engine: how guests are compiled, where their memory comes from, and the clock that makes them yield.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use wasmtime::{Config, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::config::GuestLimits;

/// How often a busy guest yields to the rest of its thread, and so how late a deadline or a client's leaving may stop
/// it. With `n` busy guests on a thread everybody else waits up to `n` ticks for a turn, and some (`EVENT_INTERVAL` of
/// `main.rs`) until the thread looks at its sockets, so the tick is short; a wake-up every 2 ms costs 0.1 % of a core.
const EPOCH_TICK: Duration = Duration::from_millis(2);

/// Core instances that one component may hold: composed components and those of scripting languages bring many.
const CORE_INSTANCES_PER_COMPONENT: u32 = 64;

/// Memories and tables that one component may hold on average. The pool reserves address space for each memory, so
/// this number is kept near what toolchains produce: one memory, and two tables with the adapters' own.
const MEMORIES_PER_COMPONENT: u32 = 2;
const TABLES_PER_COMPONENT: u32 = 8;

/// Stack for the Wasm of one guest, and for the fiber on which it runs together with the host calls that it makes.
const WASM_STACK: usize = 512 * 1024;
const FIBER_STACK: usize = 2 * 1024 * 1024;

/// Fibers that one guest of WASI 0.3 may hold: one for each task that has not ended.
const STACKS_PER_CONCURRENT: u32 = 4;

/// What a slot of the pool keeps when its guest ends, in bytes: so much is wiped with zeros, the rest goes back to the
/// kernel. Giving pages back flushes the address translation of every core, which was half of a small request's cost.
/// Of a memory it keeps as much as the stack of 1 MiB that toolchains put at its start, and some data behind it. All of that is
/// the guest's by the budget as well, and the next guest takes the slot that is warm.
const KEEP_MEMORY: usize = 1280 * 1024;
const KEEP_TABLE: usize = 16 * 1024;
const KEEP_STACK: usize = 64 * 1024;
/// Guests that have slots which keep something, at the least: 8 × 1360 KiB are 11 MiB, 3 MiB for the memory of hello. More than as
/// many threads never run; where more wait for somebody at the same time, theirs keep nothing, so that a burst leaves nothing behind.
const WARM_GUESTS_MIN: u32 = 8;

/// Guests that have slots which keep something.
pub(crate) fn warm_guests() -> u32 {
    let threads = thread::available_parallelism().map_or(1, |threads| u32::try_from(threads.get()).unwrap_or(u32::MAX));
    threads.saturating_mul(2).max(WARM_GUESTS_MIN)
}

/// Slots beyond those that guests may take: of stores whose memory is just being given back.
const SPARE: u32 = 8;

/// Initial memory up to this size is mapped, copied on write, and not written at every start, in bytes.
const DENSE_IMAGE: u64 = 256 * 1024 * 1024;

/// Where the memory of guests comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allocator {
    /// Slots reserved at start: instantiation is cheap.
    Pooling,
    /// Mapped for each guest: slower, but needs no reservation.
    OnDemand,
}

impl Allocator {
    /// Its name in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pooling => "pooling",
            Self::OnDemand => "on-demand",
        }
    }
}

/// The engines that run one component. They differ in their slots alone.
pub(crate) struct Engines {
    /// For as many guests as may run at the same time. Its slots keep nothing.
    pub(crate) all: Engine,
    /// For [`warm_guests`] of them, where there are slots.
    pub(crate) warm: Option<Engine>,
    pub(crate) allocator: Allocator,
}

/// Makes engines that can run `guests` guests at the same time, each within `limits`, and starts their clock. With
/// `concurrent` they can run components of WASI 0.3.
///
/// The pools reserve address space (about 4 GiB a memory, so that the compiler can leave out bounds checks). Where that
/// is refused (`ulimit -v`, strict overcommit, a small address space) memory is mapped on demand instead, and the log
/// says so.
///
/// # Errors
/// When neither can be had: the CPU or the operating system is not one that Wasmtime supports.
pub(crate) fn start(guests: u32, limits: &GuestLimits, concurrent: bool) -> anyhow::Result<Engines> {
    let pooling = |guests, keep| {
        let pool = InstanceAllocationStrategy::Pooling(pool(guests, keep, limits, concurrent));
        Engine::new(&config(pool, concurrent))
    };
    let pools = pooling(guests, Keep::Nothing).and_then(|all| Ok((all, pooling(warm_guests() + SPARE, Keep::Warm)?)));
    let engines = match pools {
        Ok((all, warm)) => Engines { all, warm: Some(warm), allocator: Allocator::Pooling },
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                guests,
                "the address space has no room for a pool of guest memories: mapping each on demand, which is slower"
            );
            Engines { all: compiler(concurrent)?, warm: None, allocator: Allocator::OnDemand }
        }
    };
    let clocks: Vec<_> = engines.warm.iter().chain([&engines.all]).map(Engine::weak).collect();
    thread::Builder::new().name("epoch".to_owned()).spawn(move || tick(&clocks)).context("start the epoch thread")?;
    Ok(engines)
}

/// An engine that runs nothing: it compiles as the one of [`start`] does.
///
/// # Errors
/// When the CPU or the operating system is not one that Wasmtime supports.
pub(crate) fn compiler(concurrent: bool) -> anyhow::Result<Engine> {
    let engine = Engine::new(&config(InstanceAllocationStrategy::OnDemand, concurrent));
    engine.map_err(anyhow::Error::from).context("start the Wasm engine")
}

/// Advances the epoch for as long as anybody holds the engines.
fn tick(engines: &[EngineWeak]) {
    while engines.iter().filter_map(EngineWeak::upgrade).map(|engine| engine.increment_epoch()).count() > 0 {
        thread::sleep(EPOCH_TICK);
    }
}

/// What slots keep when their guests end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Warm,
    Nothing,
}

fn config(allocation: InstanceAllocationStrategy, concurrent: bool) -> Config {
    let mut config = Config::new();
    config
        .allocation_strategy(allocation)
        .concurrency_support(concurrent) // a component of WASI 0.2 needs none, and is faster without
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .memory_init_cow(true)
        // However sparse its initial memory is: those of scripting languages have tens of MiB, which would be copied
        // for every instance.
        .memory_guaranteed_dense_image_size(DENSE_IMAGE);
    config
}

fn pool(guests: u32, keep: Keep, limits: &GuestLimits, concurrent: bool) -> PoolingAllocationConfig {
    let kept = |bytes| if keep == Keep::Warm { bytes } else { 0 };
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(guests)
        .total_core_instances(guests.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(guests.saturating_mul(MEMORIES_PER_COMPONENT))
        .total_tables(guests.saturating_mul(TABLES_PER_COMPONENT))
        .total_stacks(if concurrent { guests.saturating_mul(STACKS_PER_CONCURRENT) } else { guests })
        .max_memories_per_component(MEMORIES_PER_COMPONENT * 4)
        .linear_memory_keep_resident(kept(KEEP_MEMORY))
        .table_keep_resident(kept(KEEP_TABLE))
        .async_stack_keep_resident(kept(KEEP_STACK))
        .max_unused_warm_slots(warm_guests())
        // Not `pagemap_scan`: it passes over a page that is swapped out or being moved, and so leaves it to the next guest
        // (bytecodealliance/wasmtime#14357, open).
        .table_elements(limits.table_elements)
        .max_memory_size(limits.memory);
    pool
}
