//! The rules are kept by an analysis of the sources, and this shows that it sees: each form of an import, planted in a small crate.

use super::imports::{self, Arrow, Sources};
use crate::support::watch;

/// Two files of a crate that use each other not, `a/one.rs` and `b/mod.rs`, and what is planted in the first.
fn planted(text: &str) -> (Vec<Arrow>, Vec<Arrow>) {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let sources = [
        file("lib.rs", "mod a; mod b; mod c; mod open;"),
        file("main.rs", "fn main() {}"),
        file("a/mod.rs", "mod one; mod two; pub struct Parent;"),
        file("a/one.rs", text),
        file("a/two.rs", "pub fn two() {} pub mod inner { pub fn deep() {} }"),
        file(
            "b/mod.rs",
            "mod child; pub use child::Child; pub use wasmtime::Engine as Motor; pub struct B; pub fn b() {}",
        ),
        file("b/child.rs", "pub struct Child;"),
        file("c.rs", "pub use crate::b; pub use wasmtime;"),
        file("open.rs", "pub use crate::b::*; pub mod prelude { pub use crate::b::B; }"),
    ];
    Sources::read(&sources, "lib.rs").arrows()
}

/// The files to which the planted text has arrows.
fn leads_to(text: &str) -> Vec<String> {
    let (within, _) = planted(text);
    let mut files: Vec<String> =
        within.into_iter().filter(|arrow| arrow.from == "a/one.rs").map(|arrow| arrow.to).collect();
    files.dedup();
    files.sort();
    files.dedup();
    files
}

#[test]
fn every_form_of_an_import_is_seen() {
    watch();
    for (text, expected) in [
        // Imports.
        ("use crate::b;", "b/mod.rs"),
        ("use crate::b::B;", "b/mod.rs"),
        ("use crate::b::{B, b};", "b/mod.rs"),
        ("use crate::{a::{two::{inner::{self, deep}}}};", "a/two.rs"),
        ("use crate::{b::{self as named}};", "b/mod.rs"),
        ("use crate::b as named;", "b/mod.rs"),
        ("use crate::b::B as _;", "b/mod.rs"),
        ("use crate::b::*;", "b/mod.rs"),
        ("pub use crate::b::B;", "b/mod.rs"),
        ("pub(crate) use crate::b::b as named;", "b/mod.rs"),
        ("fn f() { use crate::b::B; }", "b/mod.rs"),
        // Where from.
        ("use super::two;", "a/two.rs"),
        ("use super::two::two;", "a/two.rs"),
        ("use super::Parent;", "a/mod.rs"),
        ("use super::*;", "a/mod.rs"),
        ("use super::super::b::B;", "b/mod.rs"),
        ("use self::below::here; mod below { pub fn here() {} }", ""),
        ("mod below { use super::super::two::two; }", "a/two.rs"),
        ("mod below { use super::super::super::b::B; }", "b/mod.rs"),
        ("mod below { fn f() { crate::b::b() } }", "b/mod.rs"),
        ("use crate::a::two; fn f() { two::inner::deep() }", "a/two.rs"),
        ("use super::*; fn f() { two::two() }", "a/mod.rs a/two.rs"),
        // Re-exports: an arrow to the file that has them.
        ("use crate::b::Child;", "b/mod.rs"),
        ("use crate::b::child::Child;", "b/child.rs"),
        ("use crate::c::b::B;", "c.rs"),
        ("use crate::open::B;", "open.rs"),
        ("use crate::open::prelude::*;", "open.rs"),
        // Paths within the code.
        ("fn f() { crate::b::b() }", "b/mod.rs"),
        ("fn f() -> crate::b::B { todo() }", "b/mod.rs"),
        ("struct S { field: Option<Vec<crate::b::B>> }", "b/mod.rs"),
        ("fn f<T: Into<super::super::b::B>>() where Vec<crate::a::Parent>: Clone {}", "a/mod.rs b/mod.rs"),
        ("impl From<crate::b::B> for () {}", "b/mod.rs"),
        ("impl crate::b::Child {}", "b/mod.rs"),
        ("fn f(x: u8) { match x { crate::b::MATCHED => {} _ => {} } }", "b/mod.rs"),
        ("fn f() { let _ = <crate::b::B as Default>::default(); }", "b/mod.rs"),
        ("const C: usize = crate::b::SIZE;", "b/mod.rs"),
        ("type T = fn(crate::b::B) -> u8;", "b/mod.rs"),
        ("trait T: crate::b::Child {}", "b/mod.rs"),
        // Macros and attributes.
        ("fn f() { tracing::info!(field = crate::b::b(), \"text\"); }", "b/mod.rs"),
        ("fn f() { format!(\"{}\", { vec![crate::b::b()] }); }", "b/mod.rs"),
        ("fn f() { crate::b::mac!(); }", "b/mod.rs"),
        ("fn f() { matches!(x, super::two::X | crate::b::Y) }", "a/two.rs b/mod.rs"),
        ("macro_rules! m { () => { $crate::b::b() } }", "b/mod.rs"),
        ("#[derive(crate::b::Derive)] struct S;", "b/mod.rs"),
        ("#[crate::b::attribute] fn f() {}", "b/mod.rs"),
        ("struct S { #[arg(value_parser = crate::b::parse)] field: u8 }", "b/mod.rs"),
        // Nothing of another file.
        ("fn f() { let b = 1; Vec::<u8>::new(); self::g() } fn g() {}", ""),
        ("//! See [`crate::b`].\n/// And crate::b::B.\nfn f() { \"crate::b::b()\"; }", ""),
        ("pub(in crate::a) fn f() {}", ""),
        ("#[cfg(test)] mod tests { use crate::b::B; }", ""),
        ("#[cfg(all(test, feature = \"x\"))] mod tests { use crate::b::B; }", ""),
        ("struct S; impl S { #[cfg(test)] fn f() { crate::b::b() } }", ""),
        ("#[test] fn t() { crate::b::b() }", ""),
        ("use ::b::B;", ""),
        // Compiled, after all.
        ("#[cfg(not(test))] use crate::b::B;", "b/mod.rs"),
        ("#[cfg(any(test, unix))] use crate::b::B;", "b/mod.rs"),
    ] {
        let expected: Vec<String> = expected.split_whitespace().map(str::to_owned).collect();
        assert_eq!(leads_to(text), expected, "{text}");
    }
}

/// Whatever the other crate is called here.
#[test]
fn every_way_to_another_crate_is_seen() {
    watch();
    for (text, expected) in [
        ("use wasmtime::Engine;", "wasmtime::Engine"),
        ("use wasmtime;", "wasmtime"),
        ("use ::wasmtime::Engine;", "wasmtime::Engine"),
        ("use wasmtime as other; type T = other::Engine;", "wasmtime::Engine"),
        ("use wasmtime::component as c; fn f() { c::Linker::new() }", "wasmtime::component::Linker::new"),
        ("use wasmtime::*;", "wasmtime"),
        ("use {wasmtime::{component::{self, Linker as L}}};", "wasmtime::component::Linker"),
        ("extern crate wasmtime as other; fn f() { other::f() }", "wasmtime::f"),
        ("fn f() -> wasmtime::Result<()> { todo() }", "wasmtime::Result"),
        ("fn f() { wasmtime::bail!(\"x\") }", "wasmtime::bail"),
        ("fn f() { tracing::info!(x = wasmtime::f()); }", "wasmtime::f"),
        ("#[derive(wasmtime::component::Lift)] struct S;", "wasmtime::component::Lift"),
        ("use crate::b::Motor;", "wasmtime::Engine"), // a re-export hides nothing
        ("use crate::c::wasmtime::Engine;", "wasmtime::Engine"),
        ("use hyper::server as s; use s::conn;", "hyper::server::conn"),
        ("use hyper; fn f() { hyper::server::f() }", "hyper::server::f"),
    ] {
        let (_, out) = planted(text);
        let seen: Vec<&str> =
            out.iter().filter(|arrow| arrow.from == "a/one.rs").map(|arrow| arrow.to.as_str()).collect();
        assert!(seen.contains(&expected), "{text}: {seen:?}");
    }
}

#[test]
fn the_binary_uses_the_library_by_its_name() {
    watch();
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let sources =
        [file("lib.rs", "pub mod a; pub use a::A;"), file("main.rs", "use taffrail::a::A;"), file("a.rs", "")];
    let (arrows, _) = Sources::read(&sources, "lib.rs").arrows();
    let seen: Vec<(&str, &str)> = arrows.iter().map(|arrow| (arrow.from.as_str(), arrow.to.as_str())).collect();
    assert_eq!(seen, [("lib.rs", "a.rs"), ("main.rs", "a.rs")]);
}

#[test]
fn a_circle_is_found_between_files_and_between_folders() {
    watch();
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    // A child that uses what its parent defines, while the parent uses the child.
    let parent = [
        file("lib.rs", "mod a;"),
        file("a/mod.rs", "mod child; pub struct Item; fn f() { child::g() }"),
        file("a/child.rs", "use super::Item; pub fn g() {}"),
    ];
    let (arrows, _) = Sources::read(&parent, "lib.rs").arrows();
    assert_eq!(of_files(&arrows), [["a/child.rs", "a/mod.rs"]]);
    // No circle of files, and yet one of folders.
    let crossed = [
        file("lib.rs", "mod a; mod b;"),
        file("a/mod.rs", "mod one; mod two;"),
        file("a/one.rs", "use crate::b::one::x;"),
        file("a/two.rs", ""),
        file("b/mod.rs", "pub mod one; mod two;"),
        file("b/one.rs", ""),
        file("b/two.rs", "use crate::a::two::x;"),
    ];
    let (arrows, _) = Sources::read(&crossed, "lib.rs").arrows();
    assert!(of_files(&arrows).is_empty());
    assert_eq!(imports::circles(imports::within("", &arrows).into_keys()), [["a", "b"]]);
    // The same one folder down.
    let nested: Vec<Arrow> = arrows
        .iter()
        .map(|arrow| Arrow { from: format!("x/{}", arrow.from), to: format!("x/{}", arrow.to), ..arrow.clone() })
        .collect();
    assert!(imports::circles(imports::within("", &nested).into_keys()).is_empty());
    assert_eq!(imports::circles(imports::within("x", &nested).into_keys()), [["a", "b"]]);
    // Three in a row, and one that only leads there.
    let round = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")];
    assert_eq!(imports::circles(round), [["a", "b", "c"]]);
}

fn of_files(arrows: &[Arrow]) -> Vec<Vec<String>> {
    imports::circles(arrows.iter().map(|arrow| (arrow.from.as_str(), arrow.to.as_str())))
}

#[test]
fn what_is_in_files_of_tests_alone_is_left_out() {
    watch();
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let sources = [
        file("lib.rs", "mod a; #[cfg(test)] mod fixtures;"),
        file("a.rs", "#[cfg(test)] mod tests;"),
        file("a/tests.rs", "use crate::fixtures; use wasmtime::x;"),
        file("fixtures.rs", "use crate::a; use wasmtime::x;"),
    ];
    let read = Sources::read(&sources, "lib.rs");
    assert_eq!(read.arrows(), (Vec::new(), Vec::new()));
    assert_eq!(read.files.len(), 2);
}
