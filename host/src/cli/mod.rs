//! The command line: every flag, its environment variable, and the check that names every fault at once.

pub mod check_health;
pub mod compile;
mod config_dir;
mod faults;
mod limits;
mod outbound;
pub mod probe;
mod serve;
mod values;

use clap::{Parser, Subcommand};

pub use check_health::CheckHealth;
pub use compile::Compile;
pub use faults::Faults;
pub use probe::Probe;
pub use serve::Flags;

/// Serves one WASI HTTP component.
///
/// Exit status: 0 after a clean drain, 1 when the drain had to cut work, 2 when the host could not start.
#[derive(Debug, Parser)]
#[command(name = "taffrail", version, max_term_width = 100)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a component over HTTP/1.1 and HTTP/2 (prior knowledge) until SIGTERM or SIGINT
    ///
    /// Health: /livez, /readyz, /version and /metrics on the admin address; /health on the
    /// traffic address.
    /// SIGTERM or SIGINT drains: not ready at once, serving for --drain-delay, then finishing for
    /// up to --drain-timeout. A second signal ends at once.
    Serve(Box<Flags>),
    /// Compile a component for this host and this kind of CPU, so that `serve` starts in milliseconds
    Compile(Compile),
    /// Ask a running host whether it is ready, for a container's health check: exit status 0 or 1
    CheckHealth(CheckHealth),
    /// Ask a URL and compare what comes back, where there is no curl: exit status 0, 1, or 2 for a wrong flag
    Probe(Box<Probe>),
}
