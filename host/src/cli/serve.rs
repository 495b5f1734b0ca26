//! The command line: every flag, its environment variable, and the check that names every fault at once.

mod instances;
mod limits;
mod outbound;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use instances::InstanceFlags;
use limits::LimitFlags;
use outbound::OutboundFlags;

pub use crate::settings::{
    AccessLog, Config, GuestConfig, GuestLimits, GuestSettings, Limits, LogFormat, OutboundLimits, Reuse,
};
use crate::values::{address, count, duration, health_path, log_filter, network};

/// A value of `--config-dir` may be as large as a whole Kubernetes Secret (1 MiB), and no larger.
const CONFIG_FILE_MAX: u64 = 1024 * 1024;

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
}

/// The flags of `compile`.
#[derive(Debug, Clone, Args)]
pub struct Compile {
    /// The component: a .wasm file, or - for standard input
    #[arg(value_name = "COMPONENT")]
    pub component: PathBuf,

    /// The file to write, usually .cwasm, or - for standard output; it needs --allow-precompiled to be
    /// served
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// The flags of `check-health`.
#[derive(Debug, Clone, Args)]
pub struct CheckHealth {
    /// Address of the host's admin listener, as it was given to it
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9090", env = "TAFFRAIL_ADMIN_LISTEN")]
    admin_listen: String,
}

impl CheckHealth {
    /// The address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(self) -> anyhow::Result<SocketAddr> {
        let mut faults = Faults::default();
        let address = faults.read("--admin-listen", &self.admin_listen, address);
        address.ok_or_else(|| faults.into())
    }
}

/// The flags of `serve` as they were given. [`Flags::check`] turns them into a [`Config`].
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// The component: a .wasm file built for wasm32-wasip2 that exports wasi:http/incoming-handler
    /// (0.2) or wasi:http/handler (0.3)
    #[arg(value_name = "COMPONENT", env = "TAFFRAIL_COMPONENT")]
    component: PathBuf,

    /// Serve a component that `taffrail compile` has compiled: its machine code is run as it is, so
    /// trust who made it as you trust the host
    #[arg(long, env = "TAFFRAIL_ALLOW_PRECOMPILED")]
    allow_precompiled: bool,

    /// The component that the precompiled one was made from, to be compiled at start when that is of
    /// another host
    #[arg(long, value_name = "FILE", env = "TAFFRAIL_FALLBACK")]
    fallback: Option<PathBuf>,

    /// Address for the traffic (port 0: any free port; the log names it)
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080", env = "TAFFRAIL_LISTEN")]
    listen: String,

    /// Address for /livez, /readyz, /version, /metrics, and / for people
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9090", env = "TAFFRAIL_ADMIN_LISTEN")]
    admin_listen: String,

    /// A value for the component's wasi:config/store (repeatable; the variable holds one)
    #[arg(long, value_name = "KEY=VALUE", env = "TAFFRAIL_CONFIG", hide_env_values = true)]
    config: Vec<String>,

    /// Directory with one file per config key, as Kubernetes mounts a Secret. One final newline of
    /// each file is left out. Where both name a key, the directory wins over --config
    #[arg(long, value_name = "DIR", env = "TAFFRAIL_CONFIG_DIR")]
    config_dir: Option<PathBuf>,

    /// A variable of the component's environment (repeatable; the variable of this flag holds one)
    #[arg(long, value_name = "KEY=VALUE", env = "TAFFRAIL_ENV", hide_env_values = true)]
    env: Vec<String>,

    /// Path on the traffic address that the host answers with its own health; empty turns it off
    #[arg(long, value_name = "PATH", default_value = "/health", env = "TAFFRAIL_HEALTH_PATH")]
    health_path: String,

    /// The application's name in the health report [default: the component's file name]
    #[arg(long, value_name = "NAME", env = "TAFFRAIL_APPLICATION")]
    application: Option<String>,

    /// After SIGTERM: how long to go on serving as usual, so that the balancer can look away
    #[arg(long, value_name = "DURATION", default_value = "0s", env = "TAFFRAIL_DRAIN_DELAY")]
    drain_delay: String,

    /// After the delay: how long requests in flight may take to finish before they are cut
    #[arg(long, value_name = "DURATION", default_value = "25s", env = "TAFFRAIL_DRAIN_TIMEOUT")]
    drain_timeout: String,

    /// Which requests get a log line at their end: all, errors, off, or at most so many a second
    /// (100/s)
    #[arg(long, value_name = "WHICH", default_value = "all", env = "TAFFRAIL_ACCESS_LOG")]
    access_log: String,

    /// Proxies whose Forwarded and X-Forwarded-* headers are believed (repeatable; the variable
    /// takes a list with commas). By default nobody's are
    #[arg(long, value_name = "CIDR", env = "TAFFRAIL_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxy: Vec<String>,

    /// What to log: a level, or directives such as info,taffrail=debug,guest=warn
    #[arg(long, value_name = "FILTER", default_value = "info", env = "TAFFRAIL_LOG")]
    log: String,

    /// How to log on stderr: human, json, or auto (human on a terminal, json elsewhere)
    #[arg(long, value_name = "FORMAT", default_value = "auto", env = "TAFFRAIL_LOG_FORMAT")]
    log_format: String,

    #[command(flatten)]
    limits: LimitFlags,

    #[command(flatten)]
    instances: InstanceFlags,

    #[command(flatten)]
    outbound: OutboundFlags,
}

/// Every fault of a configuration, one line each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these settings cannot be used:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

impl Faults {
    /// Reads one flag's text; a fault is kept, named by flag and variable, and the reading goes on.
    fn read<T>(&mut self, flag: &str, text: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parse(text).map_err(|why| self.add(flag, &format!("{text:?} {why}"))).ok()
    }

    fn add(&mut self, flag: &str, fault: &str) {
        let variable = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
        self.0.push(format!("{flag} (TAFFRAIL_{variable}): {fault}"));
    }
}

impl Flags {
    /// Checks every flag.
    ///
    /// # Errors
    /// All faults together, so that one run is enough to find them.
    pub fn check(self) -> Result<Config, Faults> {
        let mut faults = Faults::default();
        let listen = faults.read("--listen", &self.listen, address);
        let admin_listen = faults.read("--admin-listen", &self.admin_listen, address);
        let health_path = faults.read("--health-path", &self.health_path, health_path);
        let drain_delay = faults.read("--drain-delay", &self.drain_delay, duration);
        let drain_timeout = faults.read("--drain-timeout", &self.drain_timeout, duration);
        let limits = self.limits.check(&mut faults);
        let trusted_proxies: Vec<_> =
            self.trusted_proxy.iter().filter_map(|text| faults.read("--trusted-proxy", text, network)).collect();
        let access_log = faults.read("--access-log", &self.access_log, access_log);
        let log = faults.read("--log", &self.log, log_filter);
        let log_format = faults.read("--log-format", &self.log_format, log_format);
        let guest_limits = self.limits.check_guest(&mut faults);
        let outbound = self.outbound.check(&mut faults);
        let reuse = self.instances.check(&mut faults);
        let environment = pairs("--env", &self.env, &mut faults).into_iter().collect();
        let guest_config = self.guest_config(&mut faults);
        if listen.is_some() && listen == admin_listen && listen.is_some_and(|address| address.port() != 0) {
            faults.add("--admin-listen", "is the traffic address too; give it a port of its own");
        }
        let application = self
            .application
            .unwrap_or_else(|| self.component.file_stem().map_or_else(String::new, |stem| stem.display().to_string()));
        let config = || {
            Some(Config {
                guest: GuestSettings {
                    component: self.component,
                    allow_precompiled: self.allow_precompiled,
                    compiler: None,
                    fallback: self.fallback,
                    config: guest_config,
                    environment,
                    reuse: reuse?,
                    limits: guest_limits?,
                    outbound: outbound?,
                },
                listen: listen?,
                admin_listen: admin_listen?,
                health_path: health_path?,
                application,
                drain_delay: drain_delay?,
                drain_timeout: drain_timeout?,
                limits: limits?,
                trusted_proxies,
                access_log: access_log?,
                log: log?,
                log_format: log_format?,
            })
        };
        match config() {
            Some(config) if faults.0.is_empty() => Ok(config),
            _ => Err(faults),
        }
    }

    fn guest_config(&self, faults: &mut Faults) -> GuestConfig {
        let mut values = pairs("--config", &self.config, faults);
        if let Some(dir) = &self.config_dir {
            match read_config_dir(dir) {
                Ok(files) => values.extend(files),
                Err(why) => faults.add("--config-dir", &why),
            }
        }
        GuestConfig(values)
    }
}

/// Names with their values.
fn pairs(flag: &str, texts: &[String], faults: &mut Faults) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for text in texts {
        // The value is not repeated in the fault: it may be a secret.
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                values.insert(name.to_owned(), value.to_owned());
            }
            _ => faults.add(flag, "a value has no key; write KEY=VALUE"),
        }
    }
    values
}

fn access_log(text: &str) -> Result<AccessLog, String> {
    match (text, text.strip_suffix("/s").and_then(|rate| count(rate).ok())) {
        ("all", _) => Ok(AccessLog::All),
        ("errors", _) => Ok(AccessLog::Errors),
        ("off", _) => Ok(AccessLog::Off),
        (_, Some(rate)) => Ok(AccessLog::PerSecond(rate)),
        _ => Err("is not a choice of requests; write all, errors, off, or a rate such as 100/s".to_owned()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err("is not a log format; write auto, human or json".to_owned()),
    }
}

/// One key per file. Names that start with `..` are Kubernetes' own (the links by which it swaps a whole Secret at
/// once), and folders hold no value.
fn read_config_dir(dir: &Path) -> Result<BTreeMap<String, String>, String> {
    let at = |path: &Path, what: String| format!("{}: {what}", path.display());
    let entries = std::fs::read_dir(dir).map_err(|error| at(dir, format!("cannot be listed: {error}")))?;
    let mut values = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|error| at(dir, error.to_string()))?.path();
        let Some(name) = path.file_name().map(|name| name.display().to_string()) else { continue };
        let metadata = std::fs::metadata(&path).map_err(|error| at(&path, error.to_string()))?;
        if name.starts_with("..") || !metadata.is_file() {
            continue;
        }
        if metadata.len() > CONFIG_FILE_MAX {
            return Err(at(&path, format!("is larger than {CONFIG_FILE_MAX} bytes")));
        }
        let bytes = std::fs::read(&path).map_err(|error| at(&path, error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| at(&path, "is not UTF-8 text".to_owned()))?;
        let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        values.insert(name, text.to_owned());
    }
    Ok(values)
}
