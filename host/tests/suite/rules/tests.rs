//! Rules about the suite itself: every test is watched, and none waits without an end.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::{list, references, texts};
use crate::support::watch;

/// A function of the suite, by its path in it.
struct Function {
    path: String,
    is_test: bool,
    /// The last names of all paths and methods in it: more than it calls, and never less.
    names: BTreeSet<String>,
    /// Lines with `while … {}`.
    endless: Vec<usize>,
}

#[derive(Default)]
struct Functions {
    module: Vec<String>,
    found: Vec<Function>,
    /// Of the functions in which the visitor is.
    open: Vec<(BTreeSet<String>, Vec<usize>)>,
}

impl Functions {
    fn of_file(file: &str, text: &str) -> Vec<Function> {
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let module = file.strip_suffix(".rs").unwrap_or(file).split('/').map(str::to_owned).collect();
        let mut functions = Self { module, ..Self::default() };
        functions.visit_file(&syntax);
        functions.found
    }

    fn function(&mut self, name: &syn::Ident, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        self.open.push(Default::default());
        visit(self);
        let (names, endless) = self.open.pop().expect("pushed above");
        let path = format!("{}::{name}", self.module.join("::"));
        self.found.push(Function { path, is_test: references::is_for_tests(attributes), names, endless });
    }

    fn saw(&mut self, name: String) {
        self.open.iter_mut().for_each(|(names, _)| names.extend([name.clone()]));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, &item.attrs, |functions| visit::visit_item_fn(functions, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, &item.attrs, |functions| visit::visit_impl_item_fn(functions, item));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.saw(path.segments.last().expect("a name").ident.to_string());
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.saw(call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        for (path, _) in references::paths_in(called.tokens.clone(), 1) {
            self.saw(path.last().expect("a name").clone());
        }
        visit::visit_macro(self, called);
    }

    fn visit_expr_while(&mut self, repeated: &'ast syn::ExprWhile) {
        if repeated.body.stmts.is_empty() {
            let line = repeated.while_token.span.start().line;
            self.open.iter_mut().for_each(|(_, endless)| endless.push(line));
        }
        visit::visit_expr_while(self, repeated);
    }
}

fn functions() -> Vec<Function> {
    texts("host/tests/suite").iter().flat_map(|(file, text)| Functions::of_file(file, text)).collect()
}

/// The paths of all tests, as `cargo test` names them.
pub fn all() -> Vec<String> {
    functions().into_iter().filter(|function| function.is_test).map(|function| function.path).collect()
}

/// The tests that do not reach `watch`, by the names of functions.
fn unwatched(functions: &[Function]) -> Vec<&str> {
    let mut by_name = BTreeMap::<&str, Vec<&Function>>::new();
    for function in functions {
        by_name.entry(function.path.rsplit("::").next().expect("a name")).or_default().push(function);
    }
    let is_watched = |test: &Function| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![test]);
        while let Some(function) = open.pop() {
            if function.names.contains("watch") {
                return true;
            }
            let next = function.names.iter().filter(|name| seen.insert(name.as_str()));
            open.extend(next.filter_map(|name| by_name.get(name.as_str())).flatten());
        }
        false
    };
    functions.iter().filter(|test| test.is_test && !is_watched(test)).map(|test| test.path.as_str()).collect()
}

#[test]
fn every_test_is_watched() {
    let functions = functions();
    assert!(functions.iter().filter(|function| function.is_test).count() > 100, "the tests are there");
    let unwatched = unwatched(&functions);
    assert!(
        unwatched.is_empty(),
        "a test that hangs must fail, so these must reach support::watch():{}",
        list(unwatched)
    );
}

#[test]
fn no_test_waits_without_an_end() {
    let endless = |function: Function| {
        let Function { path, endless, .. } = function;
        endless.into_iter().map(move |line| format!("{path}, line {line}"))
    };
    let endless: Vec<String> = functions().into_iter().flat_map(endless).collect();
    assert!(endless.is_empty(), "`while … {{}}` has no end: use support::eventually:{}", list(endless));
}

#[test]
fn a_test_that_is_not_watched_or_has_no_end_is_found() {
    watch();
    let planted = "
        #[test] fn not_watched() { helper(1); while more() {} }
        #[tokio::test] async fn watched_at_once() { watch(); }
        #[tokio::test(flavor = \"multi_thread\")] async fn watched_by_another() { assert!(setup().start().await); }
        fn helper(x: u8) {}
        fn setup() { Setup::serving() }
        impl Setup { fn serving() { crate::support::watch(); } }
        mod inner { #[test] fn not_watched_either() {} }
    ";
    let found = Functions::of_file("planted.rs", planted);
    assert_eq!(unwatched(&found), ["planted::not_watched", "planted::inner::not_watched_either"]);
    let endless: Vec<&str> =
        found.iter().filter(|function| !function.endless.is_empty()).map(|found| found.path.as_str()).collect();
    assert_eq!(endless, ["planted::not_watched"]);
}
