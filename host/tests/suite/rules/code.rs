//! Rules about what stands in the code itself.

use syn::visit::{self, Visit};

use super::references::{attributes, is_for_tests};
use super::{host, imports, list};
use crate::support::watch;

/// The status of a failure of the guest, the client or the host.
const STATUSES: [&str; 6] =
    ["INTERNAL_SERVER_ERROR", "BAD_GATEWAY", "GATEWAY_TIMEOUT", "BAD_REQUEST", "REQUEST_TIMEOUT", "PAYLOAD_TOO_LARGE"];

#[test]
fn the_status_of_a_failure_is_picked_in_one_place() {
    let mut wrong = Vec::new();
    let mut picked = Vec::new();
    for (file, syntax) in &host().files {
        let names = imports::names(syntax).into_iter().filter(|(name, _)| STATUSES.contains(&name.as_str()));
        match file.as_str() {
            "error.rs" => picked.extend(names.map(|(name, _)| name)),
            _ => wrong.extend(names.map(|(name, line)| format!("{file}:{line} {name}"))),
        }
    }
    assert!(wrong.is_empty(), "the status of a failure belongs into error.rs alone:{}", list(wrong));
    assert!(STATUSES.iter().all(|status| picked.iter().any(|name| name == status)), "{picked:?}");
}

/// What a visit of the code has found.
#[derive(Default)]
struct Faults {
    awaits: Vec<usize>,
    panics: Vec<(String, usize)>,
}

impl Faults {
    fn of(syntax: &syn::File) -> Self {
        let mut faults = Self::default();
        faults.visit_file(syntax);
        faults
    }

    /// What is called in the tokens of a macro: they may be anything, and mostly are expressions.
    fn in_tokens(&mut self, tokens: proc_macro2::TokenStream) {
        let mut last = None;
        for token in tokens {
            match &token {
                proc_macro2::TokenTree::Group(group) => self.in_tokens(group.stream()),
                proc_macro2::TokenTree::Ident(name) => {
                    let name = name.to_string();
                    let method = last == Some('.') && ["unwrap", "expect"].contains(&name.as_str());
                    if method || PANICS.contains(&name.as_str()) {
                        self.panics.push((name, token.span().start().line));
                    }
                }
                _ => {}
            }
            last = match &token {
                proc_macro2::TokenTree::Punct(punct) => Some(punct.as_char()),
                _ => None,
            };
        }
    }
}

const PANICS: [&str; 4] = ["panic", "todo", "unimplemented", "unreachable"];
const LOGS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "event"];

fn has_await(tokens: proc_macro2::TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        proc_macro2::TokenTree::Group(group) => has_await(group.stream()),
        proc_macro2::TokenTree::Ident(name) => name == "await",
        _ => false,
    })
}

impl<'ast> Visit<'ast> for Faults {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let segment = called.path.segments.last().expect("a name");
        let (name, line) = (segment.ident.to_string(), segment.ident.span().start().line);
        if PANICS.contains(&name.as_str()) {
            self.panics.push((format!("{name}!"), line));
        }
        if LOGS.contains(&name.as_str()) && has_await(called.tokens.clone()) {
            self.awaits.push(line);
        }
        self.in_tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if ["unwrap", "expect"].iter().any(|name| call.method == name) {
            self.panics.push((format!(".{}()", call.method), call.method.span().start().line));
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// A log line that is filtered out does not evaluate its fields, so nothing may happen in them.
#[test]
fn nothing_is_awaited_within_a_log_line() {
    for (file, syntax) in &host().files {
        let awaits = Faults::of(syntax).awaits;
        assert!(awaits.is_empty(), "{file}: a log line awaits: {awaits:?}");
    }
}

#[test]
fn no_panic_is_written_into_the_host() {
    for (file, syntax) in &host().files {
        let panics = Faults::of(syntax).panics;
        assert!(panics.is_empty(), "{file}: {panics:?}");
    }
}

#[test]
fn what_is_forbidden_is_found_where_it_is_planted() {
    watch();
    let faults = |text: &str| Faults::of(&syn::parse_file(text).expect("Rust"));
    for text in [
        "async fn f() { tracing::info!(x = g().await, \"text\"); }",
        "use tracing::warn; async fn f() { warn!(x = { g(h().await) }) }",
    ] {
        assert_eq!(faults(text).awaits.len(), 1, "{text}");
    }
    for text in [
        "fn f() { x.unwrap(); }",
        "fn f() { x.expect(\"y\").z(); }",
        "fn f() { panic!(\"x\") }",
        "fn f() { std::unreachable!() }",
        "fn f() { format!(\"{}\", x.unwrap()) }",
        "fn f() { tokio::select! { _ = x => todo!() } }",
    ] {
        assert_eq!(faults(text).panics.len(), 1, "{text}");
    }
    let none = faults(
        "fn f() { x.unwrap_or(1); tracing::info!(\"await\"); } #[cfg(test)] mod tests { fn f() { x.unwrap(); } }",
    );
    assert!(none.awaits.is_empty() && none.panics.is_empty());
}
