//! The binary: parse, start, wait for the signal, drain, exit code.

use std::process::ExitCode;

use clap::Parser;
use taffrail::config::{Command, CommandLine, Config};
use taffrail::lifecycle::TerminationSignals;
use taffrail::{Host, check_health, compile, logs};

fn main() -> ExitCode {
    let (ended, failure) = match CommandLine::parse().command {
        Command::Serve(flags) => (flags.check().map_err(Into::into).and_then(start), 2), // as clap for a wrong flag
        Command::Compile(flags) => (compile::run(&flags.component, &flags.output), 2),
        Command::CheckHealth(asked) => (asked.check().and_then(check_health::run), 1),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(failure)
    })
}

fn start(mut config: Config) -> anyhow::Result<ExitCode> {
    // Where a node gives huge pages to everybody, each guest's memory would take some. Refused only by kernels without any.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    config.guest.compiler = std::env::current_exe().ok();
    logs::install(&config.log, config.log_format)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = TerminationSignals::install()?;
    let host = tokio::select! {
        host = Host::start(config) => host?,
        signal = signals.next() => anyhow::bail!("{signal} before the start was complete"),
    };
    signals.next().await;
    let cut = tokio::select! {
        drained = host.drain() => drained.cut > 0,
        _ = signals.next() => true, // asked twice: at once
    };
    Ok(ExitCode::from(u8::from(cut)))
}
