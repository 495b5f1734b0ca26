//! `make bench`: everything side by side in one run. See `--help`.

mod cold_start;
mod comparison;
mod guard;
mod load;
mod otlp;
mod report;
mod results;
mod rounds;
mod servers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};

use crate::comparison::Comparison;
use crate::load::workload::{WORKLOADS, Workload};
use crate::rounds::Settings;
use crate::servers::artifacts::Artifacts;
use crate::servers::server::{self, Server};
use crate::servers::{bare, native};

/// Measures taffrail beside native hyper, wasmtime serve and Flask, in interleaved rounds, and prints one report. The
/// same report, the figures of every round and a plot go to target/bench/ (report.md, report.json, report.svg).
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Three short rounds, and half load for one workload alone: under three minutes
    #[arg(long)]
    quick: bool,

    /// Measure only these servers (native is always there), by name and separated by commas
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,

    /// Measure only these workloads, by name and separated by commas; "start" is one of them
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,

    /// Rounds
    #[arg(long)]
    rounds: Option<usize>,

    /// Seconds that each workload is measured for, in each round
    #[arg(long)]
    seconds: Option<f64>,

    /// For CI: only whether taffrail ÷ bare wasmtime reaches --floor at 32 connections; the best of three tries counts
    #[arg(long, requires = "floor", conflicts_with = "otlp")]
    guard: bool,

    /// The lowest ratio that --guard accepts
    #[arg(long)]
    floor: Option<f64>,

    /// Only what a trace collector costs that is not there, or never answers
    #[arg(long)]
    otlp: bool,

    /// Where the report goes [default: bench/ below --target]
    #[arg(long)]
    out: Option<PathBuf>,

    /// Another binary of Taffrail [default: release/taffrail below --target]
    #[arg(long)]
    taffrail: Option<PathBuf>,

    /// A build of Taffrail whose telemetry and deadline were taken out, to measure what they cost
    #[arg(long)]
    all_off: Option<PathBuf>,

    /// Where the builds are
    #[arg(long, env = "CARGO_TARGET_DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target"))]
    target: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The native server itself
    #[command(hide = true)]
    Native {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        token: String,
    },
    /// The bare server itself
    #[command(hide = true)]
    Bare {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        token: String,
        #[arg(long)]
        compiled: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything could be measured, and the guard holds.
fn run(arguments: Arguments) -> anyhow::Result<bool> {
    match arguments.command {
        Some(Command::Native { listen, token }) => return native::serve(listen, token).map(|()| true),
        Some(Command::Bare { listen, token, compiled }) => {
            return bare::serve(listen, &compiled, &token).map(|()| true);
        }
        None => {}
    }
    let settings = arguments.settings()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = arguments.target.canonicalize();
    let target = target.with_context(|| format!("{} is missing: run `make host`", arguments.target.display()))?;
    let (taffrail, all_off) = (arguments.taffrail.as_deref(), arguments.all_off.as_deref());
    let artifacts = Artifacts::find(&root.canonicalize()?, &target, taffrail, all_off)?;
    if arguments.guard {
        return guard::hold(&artifacts, &settings, arguments.floor.unwrap_or(0.0));
    }
    if arguments.otlp {
        return otlp::measure(&artifacts, &settings);
    }
    let comparison = arguments.comparison()?;
    comparison::measure(&artifacts, &settings, &comparison)
}

impl Arguments {
    fn settings(&self) -> anyhow::Result<Settings> {
        let (rounds, seconds, cold_starts) = match (self.guard, self.quick) {
            (true, _) => (3, 1.0, 0),
            (_, true) => (3, 0.35, 5),
            _ => (5, 2.0, 20),
        };
        let (rounds, seconds) = (self.rounds.unwrap_or(rounds), self.seconds.unwrap_or(seconds));
        ensure!(rounds > 0, "--rounds must be at least 1");
        ensure!((0.1..=3600.0).contains(&seconds), "--seconds must be between 0.1 and 3600");
        let warm_up = Duration::from_secs_f64((seconds / 4.0).min(0.5));
        Ok(Settings {
            rounds,
            warm_up,
            measured: Duration::from_secs_f64(seconds),
            every_half: !self.quick,
            cold_starts,
        })
    }

    fn comparison(&self) -> anyhow::Result<Comparison> {
        let mut names: Vec<_> = WORKLOADS.iter().map(|workload| workload.id).collect();
        names.extend(["start", "telemetry"]);
        ensure_known("--workloads", &self.workloads, &names)?;
        let wants = |name: &str| self.workloads.is_empty() || self.workloads.iter().any(|given| given == name);
        Ok(Comparison {
            servers: self.chosen_servers()?,
            workloads: WORKLOADS.into_iter().filter(|workload| wants(workload.id)).collect::<Vec<Workload>>(),
            cold_starts: wants("start"),
            telemetry: wants("telemetry"),
            quick: self.quick,
            out: self.out.clone(),
        })
    }

    fn chosen_servers(&self) -> anyhow::Result<Vec<Server>> {
        let all = server::all();
        let names: Vec<_> = all.iter().map(|server| server.id).collect();
        ensure_known("--servers", &self.servers, &names)?;
        let chosen = |server: &Server| self.servers.is_empty() || self.servers.iter().any(|name| name == server.id);
        Ok(all.into_iter().filter(|server| chosen(server) || server.id == "native").collect())
    }
}

fn ensure_known(flag: &str, given: &[String], names: &[&str]) -> anyhow::Result<()> {
    for name in given {
        ensure!(names.contains(&name.as_str()), "{flag}: there is no {name:?}; there are {}", names.join(", "));
    }
    Ok(())
}
