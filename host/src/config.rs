//! What the command line becomes once it is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::allowlist::Allowed;

/// As a file's name: standard input or output.
pub const STANDARD_STREAM: &str = "-";

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
    pub access_log: AccessLog,
    /// The log's filter, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// The log's format.
    pub log_format: LogFormat,
}

/// What one request, and all of them together, may cost. Each is enforced in one place, which its comment names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The time of a whole request (`guest`: the guest's run; `request`: a response that is not read).
    pub deadline: Duration,
    /// Requests in flight (`request`); `None` is derived by `capacity`.
    pub max_in_flight: Option<u32>,
    /// Open connections (`server`); `None` is derived by `capacity`.
    pub max_connections: Option<u32>,
    /// Time for a head (`connection`).
    pub header_timeout: Duration,
    /// Time between requests (`connection`).
    pub idle_timeout: Duration,
    /// Time between two pieces of a request body (`body`).
    pub body_timeout: Duration,
    /// Time for which a client may take nothing of its response (`activity` for a connection, `request` for a stream).
    pub write_timeout: Duration,
    /// Bytes of a request line and its header (`request`).
    pub max_header_size: usize,
    /// Fields of a request's header (`request`).
    pub max_headers: usize,
    /// Bytes of a request body (`body`).
    pub max_body: u64,
    /// Bytes of a response's header (`request`).
    pub max_response_header_size: usize,
    /// Streams of an HTTP/2 connection (`connection`).
    pub http2_max_streams: u32,
}

/// How many requests an instance of the component may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// Requests, one after the other; 1 gives each a sandbox of its own.
    pub requests: u32,
    /// Requests at the same time, of a component of WASI 0.3.
    pub concurrency: u32,
    /// How long an instance may wait for its next request.
    pub idle: Duration,
    /// Linear memory above which an instance ends after its request, in bytes.
    pub memory: usize,
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
    /// What it may call (`outbound`).
    pub outbound: OutboundLimits,
}

/// What guests may call.
#[derive(Debug, Clone)]
pub struct OutboundLimits {
    /// The servers; none by default.
    pub allowed: Vec<Allowed>,
    /// Networks that are not public, and that names of the list may lead to all the same.
    pub networks: Vec<IpNet>,
    /// Certificate authorities beside the machine's own, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Time for a connection: name, TCP and TLS.
    pub connect_timeout: Duration,
    /// Time from the request to the head of the answer, on a connection.
    pub first_byte_timeout: Duration,
    /// Time between two pieces of an answer.
    pub between_bytes_timeout: Duration,
    /// Calls under way, of all guests together.
    pub max_in_flight: u32,
    /// Calls under way, of one guest.
    pub max_per_request: u32,
}

/// What one guest may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestLimits {
    /// Bytes of linear memory, all its memories together.
    pub memory: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Handles at the same time.
    pub handles: usize,
    /// Bytes that one call of the host may carry.
    pub call_size: usize,
    /// Lines a second that all guests together may print.
    pub log_rate: u32,
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
pub enum AccessLog {
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
