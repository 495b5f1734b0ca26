//! Machine, sources and noise: what a number is worth.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::report::table::number;
use crate::results::{Results, Spread};

/// Per cent of the machine that other processes may take before the numbers are in doubt.
const NOISE_LIMIT: f64 = 5.0;

/// The machine and the sources.
pub fn describe(root: &Path) -> Value {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start_matches([' ', '\t', ':']).to_owned()))
    };
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(root).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    json!({
        "commit": run("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        "date": run("date", &["--utc", "+%Y-%m-%d %H:%M UTC"]),
        "cpu": line("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": line("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "rustc": run("rustc", &["--version"]),
    })
}

/// What other processes took of the machine, in per cent.
fn noise(all: &[&Results]) -> Option<Spread> {
    let rounds = all.iter().flat_map(|results| &results.0).flat_map(|series| series.rounds.iter().flatten());
    Spread::of(rounds.filter_map(|figures| figures.get("others_cpu_percent").copied()))
}

/// Whether they took so much that the numbers are in doubt.
pub fn is_noisy(all: &[&Results]) -> bool {
    noise(all).is_some_and(|share| share.median > NOISE_LIMIT)
}

/// The noise in one line, a warning when it was too much.
pub fn noise_line(all: &[&Results]) -> String {
    let Some(share) = noise(all) else { return String::new() };
    let (median, max) = (number(share.median), number(share.max));
    let said = format!("Other processes took {median} % of the machine (at most {max} %) while it was measured.\n");
    if is_noisy(all) {
        return format!("\nWARNING: {said}The numbers are in doubt: repeat when the machine is quiet.\n");
    }
    said
}
