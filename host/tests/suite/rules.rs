//! The rules of the house, read from the sources.

use std::fs;
use std::path::Path;

/// The sources of the host, with their paths below `src`.
fn sources() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&src).expect("below src").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    assert!(found.len() > 10, "the sources are there");
    found
}

/// Code without comments.
fn code(text: &str) -> String {
    text.split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Only these files may use the word.
fn only_in(word: &str, allowed: &[&str]) {
    let files: Vec<String> = sources()
        .into_iter()
        .filter(|(name, text)| code(text).contains(word) && !allowed.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, _)| name)
        .collect();
    assert!(files.is_empty(), "{word} belongs into {allowed:?} alone, and is in {files:?}");
    assert!(allowed.iter().all(|file| sources().iter().any(|(name, _)| name.starts_with(file))), "{allowed:?} exist");
}

#[test]
fn wasmtime_is_known_to_the_guest_and_to_outbound_alone() {
    only_in("wasmtime", &["guest/", "outbound.rs"]);
}

#[test]
fn the_server_of_hyper_is_known_to_connections_and_admin_alone() {
    only_in("hyper::server", &["connection.rs", "admin.rs"]);
}

#[test]
fn clap_is_known_to_the_configuration_alone() {
    only_in("clap::", &["config/", "main.rs"]);
    let main = sources().into_iter().find(|(name, _)| name == "main.rs").expect("main.rs").1;
    assert!(main.matches("clap::").count() == 1 && main.contains("use clap::Parser;"), "main only parses");
}

#[test]
fn the_status_of_a_failure_is_picked_in_one_place() {
    for status in [
        "INTERNAL_SERVER_ERROR",
        "BAD_GATEWAY",
        "GATEWAY_TIMEOUT",
        "BAD_REQUEST",
        "REQUEST_TIMEOUT",
        "PAYLOAD_TOO_LARGE",
    ] {
        only_in(status, &["error.rs"]);
    }
}

#[test]
fn the_names_of_metrics_are_in_one_place() {
    only_in("prometheus_client", &["metrics/"]);
}

#[test]
fn opentelemetry_and_tls_are_known_where_they_are_used_alone() {
    only_in("opentelemetry", &["spans.rs"]);
    only_in("rustls", &["tls.rs", "spans.rs", "outbound.rs"]);
}

#[test]
fn the_arrows_never_turn_back() {
    let leaves = [
        "activity",
        "allowlist",
        "body",
        "capacity",
        "config",
        "error",
        "forwarded",
        "lifecycle",
        "logs",
        "metrics",
        "record",
        "settings",
        "spans",
        "tls",
        "trace",
        "values",
    ];
    let may_use: &[(&str, &[&str])] = &[
        ("server", &["connection", "request"]),
        ("connection", &["request"]),
        ("request", &["guest"]),
        ("guest/", &["outbound"]),
        ("outbound", &[]),
        ("admin", &["status"]),
        ("status", &[]),
    ];
    let modules = ["server", "connection", "request", "guest", "outbound", "admin", "status"];
    for (name, text) in sources() {
        let rank = may_use.iter().find(|(module, _)| name.starts_with(module));
        let allowed = match rank {
            Some((_, allowed)) => *allowed,
            None if leaves.iter().any(|leaf| name == format!("{leaf}.rs") || name.starts_with(&format!("{leaf}/"))) => {
                &[]
            }
            None => continue, // lib.rs and main.rs see everything
        };
        for module in modules.iter().filter(|module| !allowed.contains(module) && !name.starts_with(**module)) {
            assert!(!code(&text).contains(&format!("crate::{module}::")), "{name} must not use {module}");
        }
    }
}

#[test]
fn the_architecture_names_every_module() {
    let sources = sources();
    let lib = &sources.iter().find(|(name, _)| name == "lib.rs").expect("lib.rs").1;
    let docs: String = lib.lines().filter(|line| line.starts_with("//!")).collect();
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in modules {
        assert!(docs.contains(module), "the architecture in lib.rs does not name {module}");
    }
}

/// A log line that is filtered out does not evaluate its fields, so nothing may happen in them.
#[test]
fn nothing_is_awaited_within_a_log_line() {
    for (name, text) in sources() {
        for call in code(&text).split("tracing::").skip(1) {
            let line = call.split(';').next().unwrap_or_default();
            assert!(!line.contains(".await"), "a log line of {name} awaits: {line}");
        }
    }
}

#[test]
fn no_panic_is_written_into_the_host() {
    for word in [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!("] {
        for (name, text) in sources() {
            assert!(!code(&text).contains(word), "{word} in {name}");
        }
    }
}

/// What the page of conformance says of components is what a test shows.
#[test]
fn the_conformance_table_names_tests_that_exist() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(host.join("../docs/components/conformance.md")).expect("the page");
    for (module, name) in page.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")) {
        let file = host.join(format!("tests/suite/{module}.rs"));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(text.contains(&format!("fn {name}(")), "{module} has no test {name}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| ") && line.contains("::")).count();
    assert!(rows >= 25, "the table has {rows} rows");
}
