//! The binary: parse, start, wait for the signal, drain, exit code.

use std::process::ExitCode;

use clap::Parser;
use taffrail::config::{Command, CommandLine, Config};
use taffrail::lifecycle::TerminationSignals;
use taffrail::{Host, logs};

const CUT: u8 = 1;
const CANNOT_START: u8 = 2; // clap uses the same for a wrong flag

fn main() -> ExitCode {
    let Command::Serve(flags) = CommandLine::parse().command;
    let served = flags.check().map_err(anyhow::Error::from).and_then(|config| {
        logs::install(&config.log, config.log_format)?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))
    });
    served.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(CANNOT_START)
    })
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = TerminationSignals::install()?;
    let host = tokio::select! {
        host = Host::start(config) => host?,
        signal = signals.next() => anyhow::bail!("{signal} before the start was complete"),
    };
    let signal = signals.next().await;
    tracing::info!(signal, "asked to end");
    tokio::select! {
        drained = host.drain() => Ok(if drained.cut == 0 { ExitCode::SUCCESS } else { ExitCode::from(CUT) }),
        signal = signals.next() => {
            tracing::warn!(signal, "asked twice: ending at once");
            Ok(ExitCode::from(CUT))
        }
    }
}
