//! `make bench`: everything side by side in one run. See `--help`.

mod check;
mod collectors;
mod goals;
mod http1;
mod http2;
mod load;
mod machine;
mod measure;
mod native;
mod pace;
mod places;
mod plot;
mod process;
mod results;
mod subjects;
mod table;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use serde_json::json;

use crate::load::Work;
use crate::measure::{Settings, WORKS};
use crate::places::Places;
use crate::results::Results;
use crate::subjects::Subject;

const NOTE: &str = "\
The load generator shares the cores with the subject, as wrk would: native is slowed by it more than the others are.
Every subject is alone with it. Numbers are median (lowest–highest) over the rounds; ratios are taken round by round.
`wasmtime serve` has no cache of compiled components here: its start from .wasm compiles, as the host's does.
At half load requests are due at a fixed rate, half of the subject's own maximum, and a latency counts from the instant
at which its request was due. CPU and RSS are the subject's own, children included.";

/// Measures taffrail beside native hyper, wasmtime serve and Flask, in interleaved rounds, and prints one report. The
/// same report, the figures of every round and a plot go to target/bench/ (report.md, report.json, report.svg).
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Three short rounds, and half load for one work alone: under three minutes
    #[arg(long)]
    quick: bool,

    /// Measure only these subjects (native is always there), by name and separated by commas
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,

    /// Measure only these works, by name and separated by commas; "start" is one of them
    #[arg(long, value_delimiter = ',')]
    works: Vec<String>,

    /// Rounds
    #[arg(long)]
    rounds: Option<usize>,

    /// Seconds that each work is measured for, in each round
    #[arg(long)]
    seconds: Option<f64>,

    /// For CI: only whether taffrail ÷ native reaches --floor at 32 connections; the best of three tries counts
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
    /// The native subject itself
    #[command(hide = true)]
    Native {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        token: String,
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
    if let Some(Command::Native { listen, token }) = arguments.command {
        return native::serve(listen, token).map(|()| true);
    }
    let settings = arguments.settings()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = arguments.target.canonicalize();
    let target = target.with_context(|| format!("{} is missing: run `make host`", arguments.target.display()))?;
    let places =
        Places::look(&root.canonicalize()?, &target, arguments.taffrail.as_deref(), arguments.all_off.as_deref())?;
    if arguments.guard {
        return guard(&places, &settings, arguments.floor.unwrap_or(0.0));
    }
    if arguments.otlp {
        return collectors::measure(&places, &settings);
    }
    report(&places, &settings, &arguments)
}

impl Arguments {
    fn settings(&self) -> anyhow::Result<Settings> {
        let (rounds, seconds, starts) = match (self.guard, self.quick) {
            (true, _) => (3, 1.0, 0),
            (_, true) => (3, 0.35, 5),
            _ => (5, 2.0, 20),
        };
        let (rounds, seconds) = (self.rounds.unwrap_or(rounds), self.seconds.unwrap_or(seconds));
        ensure!(rounds > 0, "--rounds must be at least 1");
        ensure!((0.1..=3600.0).contains(&seconds), "--seconds must be between 0.1 and 3600");
        let warm_up = Duration::from_secs_f64((seconds / 4.0).min(0.5));
        Ok(Settings { rounds, warm_up, measured: Duration::from_secs_f64(seconds), every_half: !self.quick, starts })
    }

    fn chosen_subjects(&self) -> anyhow::Result<Vec<Subject>> {
        let all = subjects::all();
        let names: Vec<_> = all.iter().map(|subject| subject.id).collect();
        known("--subjects", &self.subjects, &names)?;
        let chosen =
            |subject: &Subject| self.subjects.is_empty() || self.subjects.iter().any(|name| name == subject.id);
        Ok(all.into_iter().filter(|subject| chosen(subject) || subject.id == "native").collect())
    }

    fn chosen_works(&self) -> anyhow::Result<Vec<Work>> {
        let mut names: Vec<_> = WORKS.iter().map(|work| work.id).collect();
        names.extend(["start", "telemetry"]);
        known("--works", &self.works, &names)?;
        Ok(WORKS.into_iter().filter(|work| self.wants(work.id)).collect())
    }

    fn wants(&self, work: &str) -> bool {
        self.works.is_empty() || self.works.iter().any(|name| name == work)
    }
}

fn known(flag: &str, given: &[String], names: &[&str]) -> anyhow::Result<()> {
    for name in given {
        ensure!(names.contains(&name.as_str()), "{flag}: there is no {name:?}; there are {}", names.join(", "));
    }
    Ok(())
}

/// The whole benchmark.
fn report(places: &Places, settings: &Settings, arguments: &Arguments) -> anyhow::Result<bool> {
    let (subjects, works) = (arguments.chosen_subjects()?, arguments.chosen_works()?);
    let starters = subjects::starters();
    let among = |subject: &Subject| subjects.iter().any(|chosen| chosen.program == subject.program);
    let starters: Vec<Subject> = starters.into_iter().filter(among).collect();
    places.require(&subjects, works.iter().any(|work| work.body > 0))?;
    let machine = machine::describe(places);
    fs::create_dir_all(places.out())?;
    let starts =
        if arguments.wants("start") { measure::starts(places, &starters, settings) } else { Results::default() };
    let results = measure::rounds(places, &subjects, &works, settings);
    let telemetry = if arguments.wants("telemetry") {
        measure::compare(places, &subjects::telemetry(), "telemetry", "GET /app, 32 connections", settings)
    } else {
        Results::default()
    };
    let all = [&results, &starts, &telemetry];
    let (sizes, remarks) = (machine::sizes(places), results::remarks(&all));

    let mut text = format!("{}\n{NOTE}\n", about(&machine, settings, arguments.quick));
    text.push_str(&machine::company(&all));
    for (title, table) in [
        ("Throughput and cost at saturation", table::throughput(&results)),
        ("Latency at saturation and at half load", table::latency(&results)),
        ("Start: exec to first 200", table::start(&starts)),
        ("What telemetry and deadline cost", table::throughput(&telemetry)),
        ("Sizes", machine::size_table(&sizes)),
        ("Goals", goals::table(&all, machine::busy(&all))),
    ] {
        text.push_str(&format!("\n### {title}\n\n{table}"));
    }
    text.push_str(&remarks);
    let json = json!({
        "machine": machine, "rounds": settings.rounds, "seconds": settings.measured.as_secs_f64(),
        "works": results.json(), "start": starts.json(), "telemetry": telemetry.json(),
        "sizes": sizes.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    });
    let title = format!("Requests a second ÷ native hyper, commit {}", machine["commit"].as_str().unwrap_or("unknown"));
    let out = arguments.out.clone().unwrap_or_else(|| places.out());
    fs::create_dir_all(&out).with_context(|| format!("{} (--out) cannot be made", out.display()))?;
    for (name, text) in
        [("report.md", &text), ("report.json", &format!("{json:#}\n")), ("report.svg", &plot::svg(&results, &title))]
    {
        fs::write(out.join(name), text).with_context(|| format!("{name} cannot be written to {}", out.display()))?;
    }
    println!("{text}\nAlso in {}: report.md, report.json, report.svg", out.display());
    Ok(all.iter().all(|results| results.complete()))
}

fn about(machine: &serde_json::Value, settings: &Settings, quick: bool) -> String {
    let said = |name: &str| machine[name].as_str().map_or_else(|| machine[name].to_string(), str::to_owned);
    format!(
        "Commit {}, {}; {}, {} cores, {}, Linux {}, {}.\n\
         {} rounds of {} s for each work{}; {} starts.",
        said("commit"),
        said("date"),
        said("cpu"),
        said("cores"),
        said("memory"),
        said("kernel"),
        said("rustc"),
        settings.rounds,
        settings.measured.as_secs_f64(),
        if quick { " (quick)" } else { "" },
        settings.starts,
    )
}

/// Three tries; the best one decides. Throughput alone would be fooled: a busy neighbour slows native more than Taffrail.
/// So the CPU that a request costs on both sides has to keep the floor too; on a quiet machine the two ratios are the same.
fn guard(places: &Places, settings: &Settings, floor: f64) -> anyhow::Result<bool> {
    let subjects: Vec<_> = subjects::all().into_iter().filter(|it| ["native", "taffrail"].contains(&it.id)).collect();
    let mut best = f64::MIN;
    for number in 1..=3 {
        let results = measure::compare(places, &subjects, "guard", "GET /app, 32 connections", settings);
        print!("\nTry {number} of 3\n\n{}{}", table::throughput(&results), results::remarks(&[&results]));
        ensure!(results.troubles().is_empty(), "requests failed: the ratio says nothing");
        let ours = results.find("guard", "taffrail").context("taffrail was not measured")?;
        let native = results.find("guard", "native").context("native was not measured")?;
        let rate = ours.ratio("requests_per_second", native).context("no round was measured")?.median;
        let cost = native.ratio("both_cpu_us_per_request", ours).context("no round was measured")?.median;
        println!("\ntaffrail ÷ native: {rate:.3} by requests a second, {cost:.3} by CPU.");
        best = best.max(rate.min(cost));
        if best >= floor {
            println!("At or above the floor of {floor}.");
            return Ok(true);
        }
    }
    println!("Below the floor of {floor} in three tries, {best:.3} at best. A change has made requests dearer.");
    Ok(false)
}
