//! Taffrail serves one WASI HTTP component.
//!
//! One process, two listeners. Traffic comes in through `server`; `request` admits and bounds it; `guest` runs the component
//! (WASI 0.2 or 0.3) in a fresh sandbox; `error` decides what the client sees when that fails. `admin` answers probes, scrapes
//! and people from a thread of its own. `lifecycle` is the one state: Starting → Ready → Draining.
//!
//! ```text
//! main → cli → host ─┬→ server → request → guest
//!                    └→ admin
//!
//! server, request → transport             the socket, what its connection is doing, deadlines
//! request, guest → http → error           bodies and their bounds, framing, forwarded clients, trace context
//! all → telemetry → http                  log, metrics, traces
//! all → config → http, error, lifecycle   leaves; beside them capacity (host; it asks config) and tls (guest, telemetry)
//! internals → guest                       what the suite and the inner benchmark see beside the public interface
//! ```
//!
//! The arrows never turn back, and there is no circle of files: `tests/suite/rules.rs` reads the sources and holds both.
//! It holds as well that wasmtime is known to `guest` alone, hyper's server to `server` and `admin`, clap to [`cli`], a failure's
//! status to `error`, the names of metrics to `telemetry/metrics`.
//!
//! # What carries a request
//!
//! | step | type | holds |
//! |---|---|---|
//! | accepted | `server::connection::Connection` | a permit, the client's address, the order to close, its `Activity` |
//! | admitted | `request::in_flight::InFlight` | a slot of the limit, until the guest has ended, and the response has or waits for its client alone |
//! | bounded | `http::request_body::RequestBody` and the deadline | the size and pace of the request body; one instant for the whole request |
//! | run | `guest::Guest::handle` | an instance in a store, its own or handed over by the last request, polled by the connection's task |
//! | answered | `http::response_body::ObservedBody` | the guest's body with the request's `Record` inside, until the last byte or the client's leaving |
//!
//! No task is spawned for a request (why: see `guest`). A guest that goes on after its response has ended gets a task, and
//! counts as in flight until it is done; and where the operator has instances answer several requests at the same time
//! (`--instance-concurrency`), each instance has one.
//!
//! # What bounds a request
//!
//! Every limit is a flag of [`cli`] and a field of [`config::Limits`], whose comment names the one place that enforces it.
//! `capacity` derives how many connections and requests the machine's memory and descriptors allow, so that a pod is never
//! killed by its own defaults. A guest yields at every tick of the engine's clock; dropping its future is what stops it,
//! whether the deadline drops it or the client's leaving. A thread with guests that compute looks at its sockets every few
//! turns (`main.rs`), so that they hold up everybody else by milliseconds.
//!
//! hyper asks a body for nothing while its client takes nothing, so the task around it keeps that time (`transport::unsent`); an
//! answer that is made and waits gives its slot back.
//!
//! # How a component is compiled
//!
//! By another process of the same binary (`taffrail compile - -o -`), which takes its memory with it when it ends: so the numbers that
//! `capacity` derives are those of a host that serves, and a component that is too large for the machine's memory ends the
//! compiler first. What it writes is in memory once, and mapped by two engines (`guest::engine`): the slots of one keep their memory
//! for the next guest, those of the other, where a burst goes, nothing.
//!
//! # What is deliberately absent
//!
//! The host pulls no image and watches no file: a new component is a new process. It terminates no TLS: the ingress does.
//! The guest gets no file and no socket, and calls only whom the operator names.
//!
//! # Embedding
//!
//! The library is what the binary is made of; another program may start a host as well:
//!
//! ```
//! use clap::Parser as _;
//! use taffrail::cli::{Command, CommandLine};
//!
//! # fn main() -> anyhow::Result<()> {
//! # let component = tempfile::NamedTempFile::new()?;
//! # std::fs::write(component.path(), wat::parse_str(include_str!("../tests/foreign/by_hand.wat"))?)?;
//! # let component = component.path().to_str().expect("a path in UTF-8");
//! let arguments = ["taffrail", "serve", component, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
//! let Command::Serve(flags) = CommandLine::parse_from(arguments).command else { unreachable!() };
//! let config = flags.check()?;
//! tokio::runtime::Runtime::new()?.block_on(async {
//!     let host = taffrail::Host::start(config).await?;
//!     println!("http://{} answers", host.address());
//!     assert_eq!(host.drain().await.cut, 0);
//!     Ok(())
//! })
//! # }
//! ```
#![warn(unreachable_pub)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod admin;
mod capacity;
pub mod cli;
pub mod config;
mod error;
mod guest;
mod host;
mod http;
mod lifecycle;
mod request;
mod server;
mod telemetry;
mod tls;
mod transport;

#[doc(hidden)]
pub mod internals;

pub use host::{Drained, Host};
pub use lifecycle::TerminationSignals;
pub use telemetry::logs::install as install_log;
pub use telemetry::panics::install as install_panic_hook;
pub use telemetry::stderr::Stderr;

/// Every request makes some hundred small allocations: this was a tenth of its cost with glibc's allocator, and is many times
/// that with musl's, which the image would have.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
