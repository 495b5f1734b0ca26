//! The rounds. In each one every subject is started and does every work, so that whatever else the machine does meets
//! all of them alike; the order turns by one from round to round.

use std::time::{Duration, Instant};

use crate::load::{self, Load, Outcome, Protocol, Schedule, Work};
use crate::places::Places;
use crate::process::Process;
use crate::results::{Cell, Figures, Results};
use crate::subjects::{Component, Form, Program, Subject};
use crate::{check, http1};

const KIB: usize = 1024;
const MIB: f64 = 1024.0 * 1024.0;

/// From this size on a body takes so long that a work is measured three times as long: only whole answers count.
const LARGE: usize = 1024 * KIB;

/// The work of the comparisons that need only one.
pub const TYPICAL: &str = "app-32";

/// Everything that is asked of a subject.
pub const WORKS: [Work; 7] = [
    Work { id: "app-1", title: "GET /app, 1 connection", protocol: Protocol::KeepAlive, clients: 1, body: 0 },
    Work { id: TYPICAL, title: "GET /app, 32 connections", protocol: Protocol::KeepAlive, clients: 32, body: 0 },
    Work { id: "app-256", title: "GET /app, 256 connections", protocol: Protocol::KeepAlive, clients: 256, body: 0 },
    Work {
        id: "connect",
        title: "GET /app, each on a new connection",
        protocol: Protocol::NewConnection,
        clients: 32,
        body: 0,
    },
    Work { id: "h2", title: "GET /app, HTTP/2, 32 streams", protocol: Protocol::Http2, clients: 32, body: 0 },
    Work { id: "echo", title: "POST 64 KiB, echoed", protocol: Protocol::KeepAlive, clients: 32, body: 64 * KIB },
    Work { id: "stream", title: "10 MiB up and down", protocol: Protocol::KeepAlive, clients: 4, body: 10 * KIB * KIB },
];

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub rounds: usize,
    pub warm_up: Duration,
    pub measured: Duration,
    /// Whether every work is measured at half load as well, or only the typical one.
    pub every_half: bool,
    pub starts: usize,
}

fn component(work: &Work) -> Component {
    if work.body == 0 { Component::Hello } else { Component::Echo }
}

/// Why a subject cannot do a work; none when it can.
fn absent(places: &Places, subject: &Subject, work: &Work) -> Option<String> {
    let speaks_http2 = matches!(subject.program, Program::Native | Program::Taffrail);
    if work.protocol == Protocol::Http2 && !speaks_http2 {
        return Some("speaks no HTTP/2".to_owned());
    }
    Some(format!("not built yet: {}", places.not_built(subject, component(work))?))
}

/// Measures every subject at every work.
pub fn rounds(places: &Places, subjects: &[Subject], works: &[Work], settings: &Settings) -> Results {
    let mut results = Results::default();
    for work in works {
        results
            .0
            .extend(subjects.iter().map(|subject| cell(subject, work.id, work.title, absent(places, subject, work))));
    }
    for round in 0..settings.rounds {
        for place in 0..subjects.len() {
            let subject = &subjects[(round + place) % subjects.len()];
            if results.0.iter().any(|cell| cell.subject == subject.id && cell.absent.is_none()) {
                eprintln!("round {} of {}: {}", round + 1, settings.rounds, subject.title);
            }
            for component in [Component::Hello, Component::Echo] {
                one_start(places, subject, component, works, settings, &mut results);
            }
        }
    }
    results
}

/// Measures subjects at the typical work alone, as a work of its own name.
pub fn compare(
    places: &Places,
    subjects: &[Subject],
    id: &'static str,
    title: &'static str,
    settings: &Settings,
) -> Results {
    let settings = &Settings { every_half: false, ..*settings };
    let typical = WORKS.into_iter().filter(|work| work.id == TYPICAL);
    rounds(places, subjects, &typical.map(|work| Work { id, title, ..work }).collect::<Vec<_>>(), settings)
}

fn cell(subject: &Subject, work: &'static str, work_title: &'static str, absent: Option<String>) -> Cell {
    let (rounds, troubles) = (Vec::new(), Vec::new());
    Cell { work, work_title, subject: subject.id, subject_title: subject.title, rounds, absent, troubles }
}

/// Starts a subject with one component, and makes it do the works that ask for this component.
fn one_start(
    places: &Places,
    subject: &Subject,
    component: Component,
    works: &[Work],
    settings: &Settings,
    results: &mut Results,
) {
    let mut cells: Vec<(&Work, &mut Cell)> = Vec::new();
    for cell in results.0.iter_mut().filter(|cell| cell.subject == subject.id && cell.absent.is_none()) {
        cells.extend(
            works
                .iter()
                .find(|work| work.id == cell.work && self::component(work) == component)
                .map(|work| (work, cell)),
        );
    }
    if cells.is_empty() {
        return;
    }
    let started = places.start(subject, component).and_then(|process| {
        check::answers(process.address, component, &places.token)?;
        Ok(process)
    });
    for (work, cell) in cells {
        let measured = match &started {
            Ok(process) => one_work(process, work, &places.token, settings),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        cell.rounds.push(match measured {
            Ok((figures, failures)) => {
                cell.troubles.extend(failures);
                Some(figures)
            }
            Err(error) => {
                cell.troubles.push(format!("{error:#}"));
                None
            }
        });
    }
}

/// One work: at saturation, then at half of what it reached there.
fn one_work(
    process: &Process,
    work: &Work,
    token: &str,
    settings: &Settings,
) -> anyhow::Result<(Figures, Vec<String>)> {
    let load = Load {
        work: *work,
        schedule: Schedule::Closed,
        target: process.address,
        token,
        warm_up: settings.warm_up,
        measured: settings.measured * if work.body > LARGE { 3 } else { 1 },
    };
    process.take_memory_peak()?;
    let full = load::run(&load, || process.cpu())?;
    let mut figures = Figures::from([
        ("requests_per_second", full.per_second),
        ("p50_us", full.microseconds(0.5)),
        ("p99_us", full.microseconds(0.99)),
        ("p999_us", full.microseconds(0.999)),
        ("cpu_us_per_request", full.cpu.as_secs_f64() * 1e6 / full.answered as f64),
        ("generator_cpu_us_per_request", full.own_cpu.as_secs_f64() * 1e6 / full.answered as f64),
        ("both_cpu_us_per_request", (full.cpu + full.own_cpu).as_secs_f64() * 1e6 / full.answered as f64),
        ("peak_rss_mib", process.take_memory_peak()? as f64 / MIB),
        ("others_cpu_percent", others_cpu_percent(&full, &load)),
        ("failed", full.failed as f64),
    ]);
    if work.body > 0 {
        figures.insert("megabytes_per_second", full.per_second * work.body as f64 / 1e6);
    }
    let mut failures = vec![failure("at saturation", full.failed, full.failure)];
    if settings.every_half || work.id == TYPICAL {
        let half = Load { schedule: Schedule::Open(full.per_second / 2.0), ..load };
        let half = load::run(&half, || process.cpu())?;
        figures.insert("half_requests_per_second", half.per_second);
        figures.insert("half_p50_us", half.microseconds(0.5));
        figures.insert("half_p99_us", half.microseconds(0.99));
        figures.insert("half_p999_us", half.microseconds(0.999));
        figures.insert("half_cpu_us_per_request", half.cpu.as_secs_f64() * 1e6 / half.answered as f64);
        *figures.entry("failed").or_default() += half.failed as f64;
        failures.push(failure("at half load", half.failed, half.failure));
    }
    Ok((figures, failures.into_iter().flatten().collect()))
}

/// What processes that are no part of the benchmark took of the machine.
fn others_cpu_percent(outcome: &Outcome, load: &Load<'_>) -> f64 {
    let others = outcome.machine_cpu.saturating_sub(outcome.cpu + outcome.own_cpu);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    others.as_secs_f64() * 100.0 / (load.measured.as_secs_f64() * cores as f64)
}

fn failure(when: &str, count: u64, first: Option<String>) -> Option<String> {
    let why = first.unwrap_or_else(|| "no answer in time".to_owned());
    (count > 0).then(|| format!("{count} requests failed {when}: {why}"))
}

/// Measures the starts: from exec to the first 200.
pub fn starts(places: &Places, subjects: &[Subject], settings: &Settings) -> Results {
    let mut cells: Vec<Cell> = Vec::new();
    for subject in subjects {
        let missing = places.not_built(subject, Component::Hello).map(|what| format!("not built yet: {what}"));
        let mut cell = cell(subject, "start", "exec to first 200", missing);
        if cell.absent.is_none() && subject.form == Form::Precompiled {
            cell.troubles.extend(places.precompile(subject.program).err().map(|error| format!("{error:#}")));
        }
        cells.push(cell);
    }
    for round in 0..settings.starts {
        eprintln!("start {} of {}", round + 1, settings.starts);
        for (subject, cell) in subjects.iter().zip(&mut cells).filter(|(_, cell)| cell.absent.is_none()) {
            let started = one_timed_start(places, subject);
            cell.troubles.extend(started.as_ref().err().map(|error| format!("{error:#}")));
            cell.rounds.push(started.ok());
        }
    }
    Results(cells)
}

fn one_timed_start(places: &Places, subject: &Subject) -> anyhow::Result<Figures> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begin = Instant::now();
    let process = places.start(subject, Component::Hello)?;
    runtime.block_on(http1::Client::new(process.address, &WORKS[0], &places.token).request())?;
    let took = begin.elapsed();
    Ok(Figures::from([
        ("start_ms", took.as_secs_f64() * 1e3),
        ("idle_rss_mib", process.memory()? as f64 / MIB),
        ("start_cpu_ms", process.cpu()?.as_secs_f64() * 1e3),
    ]))
}
