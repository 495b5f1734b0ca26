//! What documents and chart say, held against code and tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host;
use crate::support::*;

/// The document with the conformance table.
const CONFORMANCE: &str = "docs/components/conformance.md";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_architecture_names_every_module() {
    let host = host();
    let (_, lib) = host.files.iter().find(|(file, _)| file == "lib.rs").expect("lib.rs");
    let line = |attribute: &syn::Attribute| match &attribute.meta {
        syn::Meta::NameValue(doc) if doc.path.is_ident("doc") => match &doc.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    };
    let docs: Vec<String> = lib.attrs.iter().filter_map(line).collect();
    let docs = docs.join("\n");
    let words: BTreeSet<&str> = docs.split(|char: char| !(char.is_alphanumeric() || char == '_')).collect();
    let modules: Vec<String> = lib
        .items
        .iter()
        .filter_map(|item| match item {
            syn::Item::Mod(module) => Some(module.ident.to_string()),
            _ => None,
        })
        .collect();
    assert!(modules.len() > 5, "lib.rs declares the modules: {modules:?}");
    for module in modules {
        assert!(words.contains(module.as_str()), "the architecture in lib.rs does not name {module}");
    }
}

/// What is promised of components is what a test shows: every row of the table names at least one, and each is there.
#[test]
fn the_conformance_table_names_tests_that_exist() {
    let tests: BTreeSet<String> = super::tests::all().into_iter().collect();
    let document = fs::read_to_string(repository().join(CONFORMANCE)).expect("the document");
    let table: Vec<&str> = document
        .lines()
        .skip_while(|line| !line.starts_with("| what the component and its client see "))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .collect();
    // A row in bold is the heading of those below it.
    let (headings, rows): (Vec<&str>, Vec<&str>) = table.into_iter().partition(|row| row.starts_with("| **"));
    assert!(headings.len() > 5 && rows.len() > headings.len(), "{CONFORMANCE} has the table: {rows:#?}");
    for row in rows {
        let named: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|code| code.contains("::")).collect();
        assert!(!named.is_empty(), "no test shows {row}");
        for test in named {
            assert!(tests.contains(test), "the suite has no test {test}");
        }
    }
}

/// The files of the chart that set variables and probes, as text.
fn chart() -> String {
    let chart = repository().join("helm/hello");
    let mut files = vec![chart.join("values.yaml")];
    files
        .extend(fs::read_dir(chart.join("templates")).expect("templates").map(|entry| entry.expect("an entry").path()));
    files.iter().filter(|file| file.is_file()).map(|file| fs::read_to_string(file).expect("text") + "\n").collect()
}

/// A variable that no flag reads would be set for nothing, in silence.
#[test]
fn every_variable_that_the_chart_sets_is_that_of_a_flag() {
    let help = Command::new(binary()).args(["serve", "--help"]).output().expect("the binary runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let variables = |text: &str| -> BTreeSet<String> {
        text.split(|char: char| !(char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_'))
            .filter(|word| word.strip_prefix("TAFFRAIL_").is_some_and(|name| !name.is_empty()))
            .map(str::to_owned)
            .collect()
    };
    let (set, known) = (variables(&chart()), variables(&help));
    assert!(set.contains("TAFFRAIL_LISTEN") && known.contains("TAFFRAIL_LISTEN"), "{set:?} {known:?}");
    let unknown: Vec<&String> = set.difference(&known).collect();
    assert!(unknown.is_empty(), "the chart sets what no flag reads: {unknown:?}");
}

#[tokio::test]
async fn every_path_that_the_chart_asks_is_one_of_the_admin_listener() {
    let chart = chart();
    let literal = |line: &str| {
        let path = line.split("path: ").nth(1)?.split([',', ' ', '}']).next()?;
        path.starts_with('/').then(|| path.to_owned())
    };
    let probed: BTreeSet<String> = chart.lines().filter(|line| line.contains("httpGet:")).filter_map(literal).collect();
    let scraped = chart.lines().filter(|line| line.trim_start().starts_with("path: /metrics")).filter_map(literal);
    let probes = chart.matches("httpGet:").count();
    let of_admin = chart.lines().filter(|line| line.contains("httpGet:") && line.contains("port: admin")).count();
    assert!(probes >= 3 && probes == of_admin, "every probe is on one line, and asks the admin listener");
    let paths: BTreeSet<String> = probed.into_iter().chain(scraped).collect();
    assert!(paths.len() >= 3, "{paths:?}");
    let host = TestHost::serving("hello").start().await;
    for path in paths {
        assert_eq!(get(host.admin, &path).await.status, 200, "{path}");
    }
}
