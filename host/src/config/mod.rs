//! Everything that a host needs to know to start, checked. The command line (`cli`) makes it; so may any other program.

pub(crate) mod allow;
pub(crate) mod limits;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use allow::Allowed;
pub use limits::{GuestLimits, Limits, OutboundLimits, Reuse};

/// Everything that the host needs to know to start, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is served, and what it may use.
    pub guest: GuestSettings,
    /// Traffic address.
    pub listen: SocketAddr,
    /// Admin address.
    pub admin_listen: SocketAddr,
    /// Path of the host's health report on the traffic address, if any.
    pub health_path: Option<String>,
    /// The application's name in the health report.
    pub application: String,
    /// How long to go on serving after the signal.
    pub drain_delay: Duration,
    /// How long requests in flight may take after that.
    pub drain_timeout: Duration,
    /// What one request, and all of them together, may cost.
    pub limits: Limits,
    /// Peers whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Which requests are logged.
    pub access_log: AccessLogMode,
    /// The log's filter, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// The log's format.
    pub log_format: LogFormat,
    /// What was left out of the configuration and why, a sentence each. A host logs them when it starts.
    pub warnings: Vec<String>,
}

/// What is served, and what it may use.
#[derive(Debug, Clone)]
pub struct GuestSettings {
    /// The component file.
    pub component: PathBuf,
    /// Whether it may be precompiled: machine code is run as it is.
    pub allow_precompiled: bool,
    /// The binary of this host, which compiles in a process of its own; without it the compiler runs in this one.
    pub compiler: Option<PathBuf>,
    /// What to compile when the precompiled file is of another host.
    pub fallback: Option<PathBuf>,
    /// How many requests an instance may answer.
    pub reuse: Reuse,
    /// What the guest reads through `wasi:config/store`. May hold secrets: never logged.
    pub config: GuestConfig,
    /// What it reads through `wasi:cli/environment`.
    pub environment: Arc<[(String, String)]>,
    /// What one guest may use.
    pub limits: GuestLimits,
    /// How large the header of a response may be, in bytes: a guest may build no larger one either.
    pub response_header: usize,
    /// What it may call (`guest/outbound`).
    pub outbound: OutboundSettings,
}

/// What guests may call.
#[derive(Debug, Clone)]
pub struct OutboundSettings {
    /// The servers; none by default.
    pub allowed: Vec<Allowed>,
    /// Networks that are not public, and that names of the list may lead to all the same.
    pub networks: Vec<IpNet>,
    /// Certificate authorities beside the machine's own, as PEM.
    pub ca_file: Option<PathBuf>,
    /// How long calls may take, and how many may be under way.
    pub limits: OutboundLimits,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Which requests get a log line at their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogMode {
    /// Every one.
    All,
    /// Those that failed: a reason other than `ok`, or a status of 500 and above.
    Errors,
    /// None.
    Off,
    /// At most so many a second; the next line says how many were left out.
    PerSecond(u32),
}

/// Keys and values for the guest. `Debug` shows the keys alone, because a value may be a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GuestConfig(pub BTreeMap<String, String>);

impl fmt::Debug for GuestConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
