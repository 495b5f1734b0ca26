//! The whole comparison: cold starts, rounds, what telemetry costs, and the report of all that.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cold_start;
use crate::load::workload::Workload;
use crate::report::{goals, machine, plot, sizes, table};
use crate::results::{self, Results};
use crate::rounds::{self, Settings};
use crate::servers::artifacts::Artifacts;
use crate::servers::server::{self, Server};

const NOTE: &str = "\
The load generator shares the cores with the server, as wrk would: native is slowed by it more than the others are.
Every server is alone with it. Numbers are median (lowest–highest) over the rounds; ratios are taken round by round.
`wasmtime serve` has no cache of compiled components here: its start from .wasm compiles, as the host's does.
At half load requests are due at a fixed rate, half of the server's own maximum, and a latency counts from the instant
at which its request was due. CPU and RSS are the server's own, children included.";

/// What to compare.
#[derive(Debug)]
pub struct Comparison {
    pub servers: Vec<Server>,
    pub workloads: Vec<Workload>,
    /// Whether cold starts are measured.
    pub cold_starts: bool,
    /// Whether the cost of telemetry is measured.
    pub telemetry: bool,
    /// Whether the report says that the run was a short one.
    pub quick: bool,
    /// Where the report goes, when not to the builds' folder.
    pub out: Option<PathBuf>,
}

/// Measures everything, and writes the report to the standard output and to its files. False when something could not be
/// measured.
///
/// # Errors
/// When something is not built, or the report cannot be written.
pub fn measure(artifacts: &Artifacts, settings: &Settings, comparison: &Comparison) -> anyhow::Result<bool> {
    let Comparison { servers, workloads, .. } = comparison;
    artifacts.require(servers, workloads.iter().any(|workload| workload.body > 0))?;
    let machine = machine::describe(artifacts.root());
    fs::create_dir_all(artifacts.out())?;
    let starts = if comparison.cold_starts { cold_starts(artifacts, settings, servers) } else { Results::default() };
    let results = rounds::run(artifacts, servers, workloads, settings);
    let telemetry = if comparison.telemetry {
        rounds::compare(artifacts, &server::telemetry(), "telemetry", "GET /app, 32 connections", settings)
    } else {
        Results::default()
    };
    let all = [&results, &starts, &telemetry];
    let (sizes, notes) = (sizes::measure(artifacts), results::notes(&all));

    let mut text = format!("{}\n{NOTE}\n", about(&machine, settings, comparison.quick));
    text.push_str(&machine::noise_line(&all));
    for (title, table) in [
        ("Throughput and cost at saturation", table::throughput(&results)),
        ("Latency at saturation and at half load", table::latency(&results)),
        ("Start: exec to first 200", table::start(&starts)),
        ("What telemetry and deadline cost", table::throughput(&telemetry)),
        ("Sizes", sizes::table(&sizes)),
        ("Goals", goals::table(&all, machine::is_noisy(&all))),
    ] {
        text.push_str(&format!("\n### {title}\n\n{table}"));
    }
    text.push_str(&notes);
    let json = json!({
        "machine": machine, "rounds": settings.rounds, "seconds": settings.measured.as_secs_f64(),
        "workloads": results.json(), "start": starts.json(), "telemetry": telemetry.json(),
        "sizes": sizes.into_iter().collect::<BTreeMap<_, _>>(),
    });
    let title = format!("Requests a second ÷ native hyper, commit {}", machine["commit"].as_str().unwrap_or("unknown"));
    let out = comparison.out.clone().unwrap_or_else(|| artifacts.out());
    fs::create_dir_all(&out).with_context(|| format!("{} (--out) cannot be made", out.display()))?;
    for (name, text) in
        [("report.md", &text), ("report.json", &format!("{json:#}\n")), ("report.svg", &plot::svg(&results, &title))]
    {
        fs::write(out.join(name), text).with_context(|| format!("{name} cannot be written to {}", out.display()))?;
    }
    println!("{text}\nAlso in {}: report.md, report.json, report.svg", out.display());
    Ok(all.iter().all(|results| results.complete()))
}

fn about(machine: &Value, settings: &Settings, quick: bool) -> String {
    let said = |name: &str| machine[name].as_str().map_or_else(|| machine[name].to_string(), str::to_owned);
    format!(
        "Commit {}, {}; {}, {} cores, {}, Linux {}, {}.\n\
         {} rounds of {} s for each workload{}; {} starts.",
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
        settings.cold_starts,
    )
}

/// The cold starts of the programs that are among the servers.
fn cold_starts(artifacts: &Artifacts, settings: &Settings, servers: &[Server]) -> Results {
    let among = |server: &Server| servers.iter().any(|chosen| chosen.program == server.program);
    let chosen: Vec<Server> = server::cold_starts().into_iter().filter(among).collect();
    cold_start::measure(artifacts, &chosen, settings.cold_starts)
}
