//! The rules of the house, read from the sources.

mod code;
mod documents;
mod imports;
mod planted;
mod references;
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use imports::{Arrow, Sources};

use crate::support::watch;

/// Which folder or file of `host/src` may use which others, as `lib.rs` draws it. What is not here, no one may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["lib", "cli", "config"]),
    ("lib", &["host", "lifecycle", "telemetry"]), // what it makes public
    ("internals", &["guest", "http", "telemetry", "config"]),
    ("cli", &["guest", "http", "telemetry", "config"]),
    ("host", &["server", "admin", "request", "guest", "telemetry", "capacity", "config", "lifecycle"]),
    ("server", &["request", "transport", "telemetry", "config"]),
    ("request", &["guest", "transport", "http", "telemetry", "error", "config", "lifecycle"]),
    ("admin", &["telemetry", "error", "lifecycle"]),
    ("guest", &["http", "telemetry", "error", "config", "tls"]),
    ("telemetry", &["http", "config", "tls"]),
    ("http", &["error"]),
    ("config", &["http"]),
    ("transport", &["config"]),
    // Leaves.
    ("capacity", &["config"]),
    ("error", &[]),
    ("lifecycle", &[]),
    ("tls", &[]),
];

/// Paths into other crates (`*` is any end of a crate's name), and the folders and files that alone may know them.
const ALONE: &[(&str, &[&str])] = &[
    ("wasmtime*", &["guest"]),
    ("wasmparser", &["guest"]),
    ("hyper::server", &["server", "admin"]),
    ("hyper_util::server", &[]),
    ("clap", &["cli", "main"]),
    ("prometheus_client", &["telemetry/metrics"]),
    ("opentelemetry*", &["telemetry"]),
    ("rustls*", &["tls", "guest/outbound"]),
    ("hyper_rustls", &["telemetry", "guest/outbound"]),
];

/// The sources below a folder of the repository, their paths relative to it.
fn texts(folder: &str) -> Vec<(String, String)> {
    watch();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("below it").display().to_string();
                found.push((name, std::fs::read_to_string(&path).expect("text")));
            }
        }
    }
    found.sort();
    assert!(found.len() > 10, "the sources of {folder} are there");
    found
}

/// The host's sources.
fn host() -> Sources {
    static TEXTS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| texts("host/src"));
    watch();
    Sources::read(&TEXTS, "lib.rs")
}

/// Whether a file is this file or folder, named without `.rs`, or within it.
fn lies_in(file: &str, place: &str) -> bool {
    file.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn list<T: std::fmt::Display>(lines: impl IntoIterator<Item = T>) -> String {
    lines.into_iter().map(|line| format!("\n  {line}")).collect()
}

/// Prints them: `make arrows`.
#[test]
fn the_folders_have_the_arrows_that_are_drawn_and_no_others() {
    let (arrows, _) = host().arrows();
    let mut drawn = BTreeMap::<&str, Vec<&str>>::new();
    let mut wrong = Vec::new();
    for ((from, to), by) in imports::within("", &arrows) {
        drawn.entry(from).or_default().push(to);
        if !ARROWS.iter().any(|(folder, may_use)| *folder == from && may_use.contains(&to)) {
            wrong.push(format!("{from} → {to} is not drawn:{}", list(by).replace('\n', "\n  ")));
        }
    }
    for (folder, uses) in &drawn {
        println!("{folder} → {}", uses.join(", "));
    }
    for (folder, may_use) in ARROWS {
        let unused = |other: &&&str| !drawn.get(folder).is_some_and(|uses| uses.contains(other));
        may_use.iter().filter(unused).for_each(|other| println!("({folder} → {other} is drawn, and nothing uses it)"));
    }
    assert!(wrong.is_empty(), "{}", list(wrong));
}

/// Of files; and of the members of any folder, each taken as a whole.
fn circles(arrows: &[Arrow], files: &Sources) -> Vec<String> {
    let of_files = imports::circles(arrows.iter().map(|arrow| (arrow.from.as_str(), arrow.to.as_str())));
    let mut found: Vec<String> = of_files.iter().map(|circle| circle.join(" ↔ ")).collect();
    for folder in imports::folders(files.files.iter().map(|(file, _)| file.as_str())) {
        for circle in imports::circles(imports::within(folder, arrows).into_keys()) {
            found.push(format!("in /{folder}: {}", circle.join(" ↔ ")));
        }
    }
    found
}

#[test]
fn there_is_no_circle_of_files_or_folders_in_the_host() {
    let host = host();
    let circles = circles(&host.arrows().0, &host);
    assert!(circles.is_empty(), "{}", list(circles));
}

#[test]
fn there_is_no_circle_of_files_in_the_benchmarks() {
    let benches = Sources::read(&texts("host/benches/src"), "bench.rs");
    let circles = circles(&benches.arrows().0, &benches);
    assert!(circles.is_empty(), "{}", list(circles));
}

/// Whether a path leads into that of a rule. To import everything of what is above it may be to import it.
fn leads_into(path: &str, rule: &str) -> bool {
    if let Some(prefix) = rule.strip_suffix('*') {
        return path.starts_with(prefix);
    }
    let above = path.strip_suffix("::*").is_some_and(|above| rule.starts_with(&format!("{above}::")));
    above || path == rule || path.starts_with(&format!("{rule}::"))
}

#[test]
fn each_crate_is_known_to_its_folders_alone() {
    let (_, out) = host().arrows();
    let mut wrong = Vec::new();
    for (rule, places) in ALONE {
        let uses = || out.iter().filter(|arrow| leads_into(&arrow.to, rule));
        for place in *places {
            if !uses().any(|arrow| lies_in(&arrow.from, place)) {
                wrong.push(format!("{place} may know {rule}, and does not"));
            }
        }
        let elsewhere = uses().filter(|arrow| !places.iter().any(|place| lies_in(&arrow.from, place)));
        wrong.extend(elsewhere.map(|arrow| format!("{rule} belongs into {places:?} alone: {arrow}")));
    }
    assert!(wrong.is_empty(), "{}", list(wrong));
}

#[test]
fn a_rule_is_about_a_crate_by_whatever_path() {
    watch();
    for (path, rule, expected) in [
        ("wasmtime_wasi::p2", "wasmtime*", true),
        ("wasmtime", "wasmtime*", true),
        ("hyper::server::conn::http1", "hyper::server", true),
        ("hyper::*", "hyper::server", true),
        ("hyper::servers", "hyper::server", false),
        ("hyper::body", "hyper::server", false),
        ("clap::Parser", "clap", true),
        ("clap_builder::x", "clap", false),
    ] {
        assert_eq!(leads_into(path, rule), expected, "{path} {rule}");
    }
    assert!(lies_in("guest/outbound/client.rs", "guest/outbound") && lies_in("tls.rs", "tls"));
    assert!(!lies_in("guests.rs", "guest") && !lies_in("guest/outbound_x.rs", "guest/outbound"));
}
