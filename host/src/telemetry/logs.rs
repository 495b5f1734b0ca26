//! Where log lines go: stderr, for people on a terminal and as JSON elsewhere.

use std::io::{self, IsTerminal};

use super::log_filter::env_filter;
use crate::config::LogFormat;

/// Installs the process-wide log. `filter` was checked by the command line.
///
/// # Errors
/// When a log is installed already.
pub fn install(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt().with_env_filter(env_filter(filter)?).with_writer(io::stderr);
    let json = match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let installed = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_ansi(io::stderr().is_terminal()).try_init()
    };
    installed.map_err(|error| anyhow::anyhow!("install the log: {error}"))
}
