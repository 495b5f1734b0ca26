//! The binary: parse, start, wait for the signal, drain, exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use taffrail::cli::{Command, CommandLine};
use taffrail::config::Config;
use taffrail::{Host, Stderr, TerminationSignals, install_log, install_panic_hook};

/// Turns of tasks after which a thread looks at its sockets and clocks although there is more to run. A guest that computes has
/// turns of 2 ms, so that tokio's own 61 let everybody else wait for 120 ms; 8 cost nothing that could be measured
/// (`BENCHMARKS.md`).
const EVENT_INTERVAL: u32 = 8;

/// How long the end of the process waits for threads that wait for somebody else, such as a pipe.
const THREADS_MAX: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    install_panic_hook();
    let command = CommandLine::parse().command;
    let stderr = match Stderr::start() {
        Ok(stderr) => stderr,
        Err(error) => {
            eprintln!("error: no thread for the log: {error}");
            return ExitCode::from(2);
        }
    };
    let _last_words = stderr.flush_on_drop();
    let (ended, failure) = match command {
        Command::Serve(flags) => {
            (flags.check().map_err(Into::into).and_then(|config| start(config, stderr.clone())), 2) // as clap for a wrong flag
        }
        Command::Compile(flags) => (flags.run(), 2),
        Command::CheckHealth(flags) => (flags.run(), 1),
        Command::Probe(flags) => (flags.run(), 1),
    };
    ended.unwrap_or_else(|error| {
        stderr.push(format!("error: {error:#}\n").as_bytes());
        ExitCode::from(failure)
    })
}

fn start(mut config: Config, stderr: Stderr) -> anyhow::Result<ExitCode> {
    // Where a node gives huge pages to everybody, each guest's memory would take some. Refused only by kernels without any.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    config.guest.compiler = std::env::current_exe().ok();
    install_log(&config.log, config.log_format, stderr)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().event_interval(EVENT_INTERVAL).build()?;
    let ended = runtime.block_on(serve(config));
    runtime.shutdown_timeout(THREADS_MAX);
    ended
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
