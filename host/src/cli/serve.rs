//! The flags of `serve`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::config_dir;
use super::faults::Faults;
use super::limits::{GuestLimitFlags, InstanceFlags, RequestLimitFlags};
use super::outbound::OutboundFlags;
use super::values::{address, count, duration, health_path, network};
use crate::config::{AccessLogMode, Config, GuestConfig, GuestSettings, LogFormat};
use crate::telemetry::log_filter::log_filter;

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
    limits: RequestLimitFlags,

    #[command(flatten)]
    guest_limits: GuestLimitFlags,

    #[command(flatten)]
    instances: InstanceFlags,

    #[command(flatten)]
    outbound: OutboundFlags,
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
        let guest_limits = self.guest_limits.check(&mut faults);
        let outbound = self.outbound.check(&mut faults);
        let reuse = self.instances.check_together(&mut faults);
        let environment = pairs("--env", &self.env, &mut faults).into_iter().collect();
        let (guest_config, warnings) = self.guest_config(&mut faults);
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
                    response_header: limits?.max_response_header_size,
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
                warnings,
            })
        };
        match config() {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(faults),
        }
    }

    /// The values for the guest, and what was left out of them.
    fn guest_config(&self, faults: &mut Faults) -> (GuestConfig, Vec<String>) {
        let mut values = pairs("--config", &self.config, faults);
        let mut warnings = Vec::new();
        if let Some(dir) = &self.config_dir {
            match config_dir::read(dir) {
                Ok(found) => {
                    values.extend(found.values);
                    warnings = found.warnings;
                }
                Err(why) => faults.add("--config-dir", &why),
            }
        }
        (GuestConfig(values), warnings)
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

fn access_log(text: &str) -> Result<AccessLogMode, String> {
    match (text, text.strip_suffix("/s").and_then(|rate| count(rate).ok())) {
        ("all", _) => Ok(AccessLogMode::All),
        ("errors", _) => Ok(AccessLogMode::Errors),
        ("off", _) => Ok(AccessLogMode::Off),
        (_, Some(rate)) => Ok(AccessLogMode::PerSecond(rate)),
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
