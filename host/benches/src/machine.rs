//! Where, when and on what: no number without it. And the sizes of what is shipped.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::places::Places;
use crate::results::{Results, Spread};
use crate::subjects::{Component, Program, Wasi};
use crate::table::{aligned, number};

/// Per cent of the machine that other processes may take before the numbers are in doubt.
const QUIET: f64 = 5.0;

/// The machine and the sources.
pub fn describe(places: &Places) -> Value {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start_matches([' ', '\t', ':']).to_owned()))
    };
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(places.root()).output().ok()?;
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
fn others(all: &[&Results]) -> Option<Spread> {
    let rounds = all.iter().flat_map(|results| &results.0).flat_map(|cell| cell.rounds.iter().flatten());
    Spread::of(rounds.filter_map(|figures| figures.get("others_cpu_percent").copied()))
}

/// Whether they took so much that the numbers are in doubt.
pub fn busy(all: &[&Results]) -> bool {
    others(all).is_some_and(|share| share.median > QUIET)
}

/// Who else was there: one line, a warning when it was too much.
pub fn company(all: &[&Results]) -> String {
    let Some(share) = others(all) else { return String::new() };
    let (median, max) = (number(share.median), number(share.max));
    let said = format!("Other processes took {median} % of the machine (at most {max} %) while it was measured.\n");
    if busy(all) {
        return format!("\nWARNING: {said}The numbers are in doubt: repeat when the machine is quiet.\n");
    }
    said
}

/// CPU time of all processes until now: user, nice and system of `/proc/stat`. The kernel's own share of the network,
/// where it is counted apart, belongs to nobody.
///
/// # Errors
/// When the kernel does not tell.
pub fn cpu() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(3);
    let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// The sizes of what is shipped, as far as it was built.
pub fn sizes(places: &Places) -> Vec<(String, Option<u64>)> {
    let size = |path: &Path| fs::metadata(path).ok().map(|file| file.len());
    let program = |program| places.program(program).ok().and_then(|file| size(&file));
    let mut sizes = vec![
        ("taffrail".to_owned(), program(Program::Taffrail)),
        ("taffrail, for precompiled components alone".to_owned(), size(&places.without_compiler())),
        ("wasmtime (the features of host/benches/install)".to_owned(), program(Program::Wasmtime)),
        ("hello.wasm".to_owned(), size(&places.component(Component::Hello, Wasi::V02))),
        ("hello.cwasm (taffrail)".to_owned(), size(&places.precompiled(Program::Taffrail))),
        ("hello.cwasm (wasmtime)".to_owned(), size(&places.precompiled(Program::Wasmtime))),
    ];
    match layers(&places.image()) {
        Some(layers) => sizes.extend(layers),
        None => sizes.push(("image layers".to_owned(), None)),
    }
    sizes
}

/// The layers that an image's manifest names, compressed.
fn layers(manifest: &Path) -> Option<Vec<(String, Option<u64>)>> {
    let manifest: Value = serde_json::from_str(&fs::read_to_string(manifest).ok()?).ok()?;
    let size = |(number, layer): (usize, &Value)| {
        (format!("image layer {}, as it is pulled", number + 1), layer["size"].as_u64())
    };
    Some(manifest["layers"].as_array()?.iter().enumerate().map(size).collect())
}

/// The sizes as a table.
pub fn size_table(sizes: &[(String, Option<u64>)]) -> String {
    let mut rows = vec![vec!["file".to_owned(), "MiB".to_owned()]];
    for (name, bytes) in sizes {
        let size = bytes.map_or_else(|| "not built yet".to_owned(), |bytes| number(bytes as f64 / (1024.0 * 1024.0)));
        rows.push(vec![name.clone(), size]);
    }
    aligned(&rows)
}
