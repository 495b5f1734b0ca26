//! The rounds. In each one every server is started and measured at every workload, so that whatever else the machine does
//! meets all of them alike; the order rotates by one from round to round.

use std::time::Duration;

use crate::load::generator::{self, Load, Measurement};
use crate::load::schedule::Arrivals;
use crate::load::workload::{Protocol, TYPICAL, WORKLOADS, Workload};
use crate::results::{Figures, Results, Series};
use crate::servers::artifacts::Artifacts;
use crate::servers::process::Process;
use crate::servers::server::{Component, Program, Server};
use crate::servers::{launch, verify};

const MIB: f64 = 1024.0 * 1024.0;

/// From this size on a body takes so long that a workload is measured three times as long: only whole responses count.
const LARGE: usize = 1024 * 1024;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub rounds: usize,
    pub warm_up: Duration,
    pub measured: Duration,
    /// Whether every workload is measured at half load as well, or only the typical one.
    pub every_half: bool,
    pub cold_starts: usize,
}

fn component(workload: &Workload) -> Component {
    if workload.body == 0 { Component::Hello } else { Component::Echo }
}

/// Why a server is not measured at a workload; none when it is.
fn skip_reason(artifacts: &Artifacts, server: &Server, workload: &Workload) -> Option<String> {
    let speaks_http2 = matches!(server.program, Program::Native | Program::Taffrail);
    if workload.protocol == Protocol::Http2 && !speaks_http2 {
        return Some("speaks no HTTP/2".to_owned());
    }
    Some(format!("not built yet: {}", artifacts.missing(server, component(workload))?))
}

/// Measures every server at every workload.
pub fn run(artifacts: &Artifacts, servers: &[Server], workloads: &[Workload], settings: &Settings) -> Results {
    let mut results = Results::default();
    for workload in workloads {
        results.0.extend(servers.iter().map(|server| {
            let skipped = skip_reason(artifacts, server, workload);
            Series::new((workload.id, workload.title), (server.id, server.title), skipped)
        }));
    }
    for round in 0..settings.rounds {
        for position in 0..servers.len() {
            let server = &servers[(round + position) % servers.len()];
            if results.0.iter().any(|series| series.server == server.id && series.skipped.is_none()) {
                eprintln!("round {} of {}: {}", round + 1, settings.rounds, server.title);
            }
            for component in [Component::Hello, Component::Echo] {
                measure_server(artifacts, server, component, workloads, settings, &mut results);
            }
        }
    }
    results
}

/// Measures servers at the typical workload alone, under another name.
pub fn compare(
    artifacts: &Artifacts,
    servers: &[Server],
    id: &'static str,
    title: &'static str,
    settings: &Settings,
) -> Results {
    let settings = &Settings { every_half: false, ..*settings };
    let typical = WORKLOADS.into_iter().filter(|workload| workload.id == TYPICAL);
    let workloads: Vec<_> = typical.map(|workload| Workload { id, title, ..workload }).collect();
    run(artifacts, servers, &workloads, settings)
}

/// Starts a server with one component, and measures it at the workloads that ask for this component.
fn measure_server(
    artifacts: &Artifacts,
    server: &Server,
    component: Component,
    workloads: &[Workload],
    settings: &Settings,
    results: &mut Results,
) {
    let mut pairs: Vec<(&Workload, &mut Series)> = Vec::new();
    for series in results.0.iter_mut().filter(|series| series.server == server.id && series.skipped.is_none()) {
        let asks = |workload: &&Workload| workload.id == series.workload && self::component(workload) == component;
        if let Some(workload) = workloads.iter().find(asks) {
            pairs.push((workload, series));
        }
    }
    if pairs.is_empty() {
        return;
    }
    let started = launch::start(artifacts, server, component).and_then(|process| {
        verify::responses(process.address, component, &artifacts.token)?;
        Ok(process)
    });
    for (workload, series) in pairs {
        let measured = match &started {
            Ok(process) => measure_workload(process, workload, &artifacts.token, settings),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        series.rounds.push(match measured {
            Ok((figures, errors)) => {
                series.errors.extend(errors);
                Some(figures)
            }
            Err(error) => {
                series.errors.push(format!("{error:#}"));
                None
            }
        });
    }
}

/// One workload: at saturation, then at half of what the server reached there.
fn measure_workload(
    process: &Process,
    workload: &Workload,
    token: &str,
    settings: &Settings,
) -> anyhow::Result<(Figures, Vec<String>)> {
    let load = Load {
        workload: *workload,
        arrivals: Arrivals::ClosedLoop,
        target: process.address,
        token,
        warm_up: settings.warm_up,
        measured: settings.measured * if workload.body > LARGE { 3 } else { 1 },
    };
    process.take_memory_peak()?;
    let full = generator::run(&load, || process.cpu())?;
    let mut figures = Figures::from([
        ("requests_per_second", full.requests_per_second),
        ("p50_us", full.latency_us(0.5)),
        ("p99_us", full.latency_us(0.99)),
        ("p999_us", full.latency_us(0.999)),
        ("cpu_us_per_request", full.server_cpu.as_secs_f64() * 1e6 / full.succeeded as f64),
        ("generator_cpu_us_per_request", full.generator_cpu.as_secs_f64() * 1e6 / full.succeeded as f64),
        ("both_cpu_us_per_request", (full.server_cpu + full.generator_cpu).as_secs_f64() * 1e6 / full.succeeded as f64),
        ("peak_rss_mib", process.take_memory_peak()? as f64 / MIB),
        ("others_cpu_percent", others_cpu_percent(&full, &load)),
        ("failed", full.failed as f64),
    ]);
    if workload.body > 0 {
        figures.insert("megabytes_per_second", full.requests_per_second * workload.body as f64 / 1e6);
    }
    let mut errors = vec![failure("at saturation", full.failed, full.first_error)];
    if settings.every_half || workload.id == TYPICAL {
        let half = Load { arrivals: Arrivals::ConstantRate(full.requests_per_second / 2.0), ..load };
        let half = generator::run(&half, || process.cpu())?;
        figures.insert("half_requests_per_second", half.requests_per_second);
        figures.insert("half_p50_us", half.latency_us(0.5));
        figures.insert("half_p99_us", half.latency_us(0.99));
        figures.insert("half_p999_us", half.latency_us(0.999));
        figures.insert("half_cpu_us_per_request", half.server_cpu.as_secs_f64() * 1e6 / half.succeeded as f64);
        *figures.entry("failed").or_default() += half.failed as f64;
        errors.push(failure("at half load", half.failed, half.first_error));
    }
    Ok((figures, errors.into_iter().flatten().collect()))
}

/// What processes that are no part of the benchmark took of the machine.
fn others_cpu_percent(measurement: &Measurement, load: &Load<'_>) -> f64 {
    let others = measurement.machine_cpu.saturating_sub(measurement.server_cpu + measurement.generator_cpu);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    others.as_secs_f64() * 100.0 / (load.measured.as_secs_f64() * cores as f64)
}

fn failure(when: &str, count: u64, first: Option<String>) -> Option<String> {
    let why = first.unwrap_or_else(|| "no response in time".to_owned());
    (count > 0).then(|| format!("{count} requests failed {when}: {why}"))
}
