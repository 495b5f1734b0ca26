//! The documents say what the code does. What a page has from the code is compared, or, where `TAFFRAIL_UPDATE_DOCS` is set
//! (`make docs`), written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::metrics::scrape;
use crate::support::*;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// `fresh` is what stands between two comments of a page.
fn compare(page: &str, begin: &str, end: &str, fresh: &str) {
    let text = read(page);
    let (head, rest) = text.split_once(begin).unwrap_or_else(|| panic!("{page} has no {begin}"));
    let (found, tail) = rest.split_once(end).unwrap_or_else(|| panic!("{page} has no {end} after {begin}"));
    if found == fresh {
        return;
    }
    assert!(
        std::env::var_os("TAFFRAIL_UPDATE_DOCS").is_some(),
        "{page} is stale, run `make docs`; it has to say:\n{fresh}"
    );
    std::fs::write(root().join(page), format!("{head}{begin}{fresh}{end}{tail}")).expect("the page is written");
}

/// What stands between the comments that `make docs` writes between.
fn generated(page: &str, what: &str, source: &str, fresh: &str) {
    let begin = format!("<!-- {what}: written by `make docs` from {source} -->\n");
    compare(page, &begin, &format!("<!-- end of {what} -->\n"), fresh);
}

/// One flag, as `taffrail serve --help` shows it.
#[derive(Debug, Default)]
struct Flag {
    name: String,
    value: String,
    text: String,
    variable: String,
    default: String,
}

/// The headings of the help, each with its flags.
fn help() -> Vec<(String, Vec<Flag>)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taffrail"));
    let output = command.args(["serve", "--help"]).env_clear().output().expect("the binary runs");
    let help = String::from_utf8(output.stdout).expect("text");
    let mut sections: Vec<(String, Vec<Flag>)> = Vec::new();
    for line in help.lines() {
        let trimmed = line.trim();
        if let Some(heading) = line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            sections.push((heading.to_owned(), Vec::new()));
        } else if let Some((_, flags)) = sections.last_mut() {
            let indent = line.len() - line.trim_start().len();
            if !trimmed.is_empty() && indent < 8 {
                let named = trimmed.split_once("--").map_or(trimmed, |(_, name)| name);
                let (name, value) = named.split_once(' ').unwrap_or((named, ""));
                let name = if trimmed.contains("--") { format!("--{name}") } else { name.to_owned() };
                flags.push(Flag { name, value: value.to_owned(), ..Flag::default() });
            } else if let (Some(flag), false) = (flags.last_mut(), trimmed.is_empty()) {
                let inside = |start: &str| trimmed.strip_prefix(start).and_then(|rest| rest.strip_suffix(']'));
                if let Some(variable) = inside("[env: ") {
                    flag.variable = variable.trim_end_matches('=').to_owned();
                } else if let Some(default) = inside("[default: ") {
                    flag.default = default.to_owned();
                } else {
                    let _ = write!(flag.text, "{}{trimmed}", if flag.text.is_empty() { "" } else { " " });
                }
            }
        }
    }
    sections.retain(|(_, flags)| !flags.is_empty());
    assert!(sections.iter().map(|(_, flags)| flags.len()).sum::<usize>() > 30, "the help has flags: {help}");
    sections
}

#[test]
fn the_page_of_flags_is_what_help_says() {
    let mut page = String::new();
    for (heading, flags) in help() {
        let _ = write!(page, "\n## {heading}\n\n| flag | variable | default | |\n|---|---|---|---|\n");
        for flag in flags.iter().filter(|flag| !flag.variable.is_empty()) {
            let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
            let name = format!("{} {}", flag.name, flag.value);
            let (name, variable, default) = (code(name.trim()), code(&flag.variable), code(&flag.default));
            let _ = writeln!(page, "| {name} | {variable} | {default} | {} |", flag.text.replace('|', "\\|"));
        }
    }
    page.push('\n');
    generated("docs/operators/flags.md", "flags", "the help of `taffrail serve`", &page);
}

/// In a table whose columns are `flag` and `default` stand flags of `serve` with their defaults, in the same order.
#[test]
fn the_defaults_that_pages_name_are_those_of_help() {
    let defaults: BTreeMap<String, String> =
        help().into_iter().flat_map(|(_, flags)| flags).map(|flag| (flag.name, flag.default)).collect();
    let mut compared = 0;
    for page in ["README", "limits", "outbound", "drain"].map(|name| format!("docs/operators/{name}.md")) {
        let text = read(&page);
        let rows = text.split("\n| flag | default |").skip(1).flat_map(|table| table.split("\n\n").next());
        for row in rows.flat_map(|table| table.lines().skip(2)) {
            let mut cells = row.split('|').skip(1).map(str::trim);
            let (flags, shown) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
            let flags: Vec<&str> = flags.split('`').filter(|text| text.starts_with("--")).collect();
            assert!(!flags.is_empty(), "{page}: {row}");
            let mut rest = shown;
            for flag in flags {
                let default = defaults.get(flag).unwrap_or_else(|| panic!("{page}: {flag} is no flag"));
                let found = rest.trim_start_matches(", ").strip_prefix(default.as_str());
                rest = found.unwrap_or_else(|| panic!("{page}: the default of {flag} is {default:?}, not {shown:?}"));
                compared += usize::from(!default.is_empty());
            }
            assert!(rest.is_empty() || rest.starts_with(':'), "{page}: {rest:?} of {row}");
        }
    }
    assert!(compared >= 25, "{compared} defaults are compared");
}

/// Kind, help and labels of a metric.
type Described = (String, String, BTreeSet<String>);

fn describe(text: &str, metrics: &mut BTreeMap<String, Described>) {
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().1 = help.trim_end_matches('.').to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().0 = kind.to_owned();
        } else if let Some((series, labels)) = line.split_once('}').and_then(|(line, _)| line.split_once('{')) {
            let ends = ["_total", "_bucket", "_count", "_sum", "_info", ""];
            let name = ends.iter().find_map(|end| series.strip_suffix(end).filter(|name| metrics.contains_key(*name)));
            let name = name.unwrap_or_else(|| panic!("{series} belongs to no metric"));
            let labels =
                labels.split("\",").filter_map(|label| label.split_once('=')).map(|(label, _)| label.to_owned());
            metrics.get_mut(name).expect("it is there").2.extend(labels.filter(|label| label != "le"));
        }
    }
}

/// Metrics of which there is nothing yet do not show, so each is made to happen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_metrics_is_what_the_host_exposes() {
    let mut metrics = BTreeMap::new();
    let calling = TestHost::serving("sandbox").with("--instance-reuse", "1").start().await;
    get(calling.addr, "/").await;
    let reusing = TestHost::serving("fail").with("--instance-reuse", "9").start().await;
    get(reusing.addr, "/trap").await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let trace = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "1")];
    let tracing = TestHost::serving("hello").spawn_with(&trace);
    get(tracing.addr(), "/ping").await;
    let accept = [("accept", "application/openmetrics-text;version=1.0.0")];
    let since = std::time::Instant::now();
    loop {
        let text = ask(Protocol::Http1, tracing.admin(), "GET", "/metrics", &accept).await.text().to_owned();
        if text.contains("taffrail_spans_exported_total{") {
            describe(&text, &mut metrics);
            break;
        }
        assert!(since.elapsed() < PATIENCE, "no export is counted: {text}");
    }
    for host in [&calling, &reusing] {
        describe(ask(Protocol::Http1, host.admin, "GET", "/metrics", &accept).await.text(), &mut metrics);
    }
    let mut page = String::from("\n| metric | kind | labels | |\n|---|---|---|---|\n");
    for (name, (kind, help, labels)) in &metrics {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    page.push('\n');
    generated("docs/operators/metrics.md", "metrics", "what the host exposes", &page);

    // What is asked for elsewhere is there.
    let text = scrape(&calling).await;
    assert!(text.contains("# TYPE taffrail_outbound_requests_total counter"), "{text}");
    let mut asked = BTreeSet::new();
    for file in ["_queries.tpl", "_panels.tpl", "prometheusrule.yaml"] {
        let text = read(&format!("helm/hello/templates/{file}"));
        // A name with colons is that of a recording rule.
        let part_of_name = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
        let names = text.split(|character| !part_of_name(character));
        asked.extend(names.filter(|name| name.starts_with("taffrail_")).map(str::to_owned));
    }
    assert!(asked.len() > 5, "the chart asks for metrics: {asked:?}");
    for name in asked {
        let ends = ["_total", "_bucket", "_count", "_sum", ""];
        let known = ends.iter().any(|end| name.strip_suffix(end).is_some_and(|name| metrics.contains_key(name)));
        assert!(known, "the chart asks for {name}, which the host has not");
    }
}

/// The list of reasons is held to the code by a unit test of `error.rs`.
#[test]
fn the_runbook_has_a_heading_for_every_reason() {
    let is_reason = |name: &&str| ["client_", "guest_", "host_"].iter().any(|fault| name.starts_with(fault));
    let clients = read("docs/clients.md");
    let table = clients.split("\n| reason | status | meaning |").nth(1).and_then(|rest| rest.split("\n\n").next());
    let table = table.expect("the table of reasons");
    let reasons: Vec<&str> = table.lines().filter_map(|row| row.split('`').nth(1)).filter(is_reason).collect();
    assert!(reasons.len() >= 25, "{reasons:?}");
    let runbook = read("docs/operators/runbook.md");
    let headings: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("### ")).filter(is_reason).collect();
    assert_eq!(headings, reasons, "the runbook's headings are the reasons, in the same order");
    for section in runbook.split("\n### ").skip(1) {
        let (reason, text) = section.split_once('\n').expect("a heading");
        let said = text.split("\n## ").next().unwrap_or_default().trim();
        assert!(said.len() > 60, "the runbook says nothing of {reason}");
    }
}

/// Code of the documents is a file of the tests, which build and serve it.
#[test]
fn code_of_the_documents_is_what_the_tests_serve() {
    let page = "docs/components/languages.md";
    let text = read(page);
    let named: Vec<&str> = text.split("<!-- the file ").skip(1).filter_map(|rest| rest.split(" -->").next()).collect();
    assert!(named.len() >= 3, "{named:?}");
    for file in named {
        let comment = format!("<!-- the file {file} -->\n");
        let fence = text.split(&comment).nth(1).and_then(|rest| rest.lines().next()).expect("a block of code");
        compare(page, &format!("{comment}{fence}\n"), "```\n", &read(file));
    }
}

#[tokio::test]
async fn the_request_of_the_readme_is_answered_as_it_says() {
    let readme = read("README.md");
    let request = readme.lines().find(|line| line.starts_with("curl ")).expect("a request");
    let (_, header) = request.split_once("--header '").expect("a header");
    let (name, token) = header.trim_end_matches('\'').split_once(": ").expect("its value");
    assert_eq!(
        token,
        read("component/demo-config/auth-tokens").trim_end(),
        "the README has the token of the demonstration"
    );
    let path = request.split("127.0.0.1:8080").nth(1).and_then(|rest| rest.split(' ').next()).expect("a path");
    let config = root().join("component/demo-config").display().to_string();
    let host = TestHost::serving("hello").with("--config-dir", &config).start().await;
    let answer = ask(Protocol::Http1, host.addr, "GET", path, &[(name, token)]).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert!(readme.contains(&format!("answers `{}`", answer.text())), "{}", answer.text());
}

#[test]
fn the_picture_of_the_status_page_has_the_parts_of_the_page() {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "python3 is missing: apt-get install python3");
        println!("NOT RUN: python3 is missing: apt-get install python3");
        return;
    }
    let mut command = Command::new("python3");
    command.arg(root().join("docs/pictures/draw")).arg("status").arg(binary()).arg(component("menace"));
    if std::env::var_os("TAFFRAIL_UPDATE_DOCS").is_none() {
        command.arg("--check");
    }
    let output = command.output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
