//! Who imports whom, read from sources. The sources are pairs of a path and a text, so that planted ones are read like the real ones.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::references::{self, Reference};

/// The name under which the binary imports the library of its own package.
const LIBRARY: &str = "taffrail";

/// A module by its names from the root of the crate: `guest::pool` is `["guest", "pool"]`.
pub type ModulePath = Vec<String>;

/// What a module's scope holds.
#[derive(Debug, Default)]
pub struct Module {
    pub file: String,
    pub children: BTreeSet<String>,
    /// What it defines itself.
    pub items: BTreeSet<String>,
    /// What it imports: the name here, and the path there.
    pub imports: BTreeMap<String, Vec<String>>,
    /// The paths of which it imports everything.
    pub globs: Vec<Vec<String>>,
}

/// A use of something that another file of the crate, or another crate, has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    pub from: String,
    /// A file of the crate; or the whole path into another crate, behind every rename and re-export.
    pub to: String,
    pub line: usize,
    /// As it stands in the source.
    pub path: String,
}

impl std::fmt::Display for Arrow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} {} ({})", self.from, self.line, self.path, self.to)
    }
}

/// The modules of one package without what is compiled for tests alone.
pub struct Sources {
    modules: BTreeMap<ModulePath, Module>,
    references: Vec<Reference>,
    pub files: Vec<(String, syn::File)>,
}

/// Where a path leads.
#[derive(Debug)]
enum Target {
    Module(ModulePath),
    /// Something that this module defines or re-exports; of the latter also what it is behind that.
    Item(ModulePath, Option<Vec<String>>),
    /// A path into another crate; or into a type or generic parameter of this scope, which no rule names.
    Elsewhere(Vec<String>),
}

/// The module of a file: `lib.rs` or `root` is the root, `main.rs` beside `lib.rs` the root of a crate of its own.
fn module_of(file: &str, root: &str) -> ModulePath {
    if file == root {
        return Vec::new();
    }
    let path = file.strip_suffix(".rs").unwrap_or(file);
    path.strip_suffix("/mod").unwrap_or(path).split('/').map(str::to_owned).collect()
}

impl Sources {
    /// Reads the sources whose crate root is `root`.
    pub fn read(sources: &[(String, String)], root: &str) -> Self {
        let parse = |(file, text): &(String, String)| {
            (file.clone(), syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}")))
        };
        let files: Vec<(String, syn::File)> = sources.iter().map(parse).collect();
        let mut read = Self { modules: BTreeMap::new(), references: Vec::new(), files: Vec::new() };
        let mut of_tests = Vec::new();
        for (file, syntax) in &files {
            let found = references::collect(module_of(file, root), file, syntax);
            read.modules.extend(found.modules);
            read.references.extend(found.references);
            of_tests.extend(found.of_tests);
        }
        let is_test = |module: &ModulePath| of_tests.iter().any(|test| module.starts_with(test));
        read.modules.retain(|module, _| !is_test(module));
        read.references.retain(|reference| !is_test(&reference.module));
        read.files = files.into_iter().filter(|(file, _)| !is_test(&module_of(file, root))).collect();
        read
    }

    fn module(&self, path: &[String]) -> &Module {
        &self.modules[path]
    }

    /// The root of the crate to which a module belongs: the binary's, else the library's.
    fn root(&self, module: &[String]) -> ModulePath {
        match module.first() {
            Some(first) if self.module(&module[..1]).file == "main.rs" => vec![first.clone()],
            _ => Vec::new(),
        }
    }

    /// `unless` is the import that is being resolved itself: `use bytes::bytes` means the crate.
    fn resolve(&self, from: &[String], path: &[String], unless: Option<&str>, depth: usize) -> Target {
        let elsewhere = || Target::Elsewhere(path.to_vec());
        let [first, rest @ ..] = path else { return Target::Module(from.to_vec()) };
        if depth == 0 {
            return elsewhere();
        }
        match first.as_str() {
            "crate" => return self.walk(&self.root(from), rest, depth),
            "self" => return self.walk(from, rest, depth),
            "super" => return self.walk(&from[..from.len().saturating_sub(1)], rest, depth),
            LIBRARY if !self.root(from).is_empty() => return self.walk(&[], rest, depth),
            _ => {}
        }
        let module = self.module(from);
        if let Some(import) = module.imports.get(first).filter(|_| unless != Some(first.as_str())) {
            let whole: Vec<String> = import.iter().chain(rest).cloned().collect();
            return self.resolve(from, &whole, Some(first), depth - 1);
        }
        if module.children.contains(first) || module.items.contains(first) {
            return self.walk(from, path, depth);
        }
        for glob in &module.globs {
            if let Target::Module(of) = self.resolve(from, glob, None, depth - 1)
                && of != from
                && self.has(&of, first)
            {
                return self.walk(&of, path, depth - 1);
            }
        }
        elsewhere()
    }

    fn has(&self, module: &[String], name: &str) -> bool {
        let module = self.module(module);
        module.children.contains(name) || module.items.contains(name) || module.imports.contains_key(name)
    }

    /// Follows a path from a module down to what it names.
    fn walk(&self, module: &[String], path: &[String], depth: usize) -> Target {
        let [first, rest @ ..] = path else { return Target::Module(module.to_vec()) };
        if first == "super" || first == "self" {
            return self.resolve(module, path, None, depth);
        }
        let scope = self.module(module);
        if scope.children.contains(first) {
            let child: ModulePath = module.iter().chain([first]).cloned().collect();
            return if self.modules.contains_key(&child) {
                self.walk(&child, rest, depth)
            } else {
                Target::Item(module.to_vec(), None) // of tests
            };
        }
        let behind = scope.imports.get(first).filter(|_| depth > 0).and_then(|import| {
            let whole: Vec<String> = import.iter().chain(rest).cloned().collect();
            match self.resolve(module, &whole, Some(first), depth - 1) {
                Target::Elsewhere(path) | Target::Item(_, Some(path)) => Some(path),
                Target::Module(_) | Target::Item(_, None) => None,
            }
        });
        Target::Item(module.to_vec(), behind)
    }

    /// The arrows between files, and those into other crates.
    pub fn arrows(&self) -> (Vec<Arrow>, Vec<Arrow>) {
        const DEPTH: usize = 16; // of imports of imports: more is a circle
        let (mut within, mut out) = (BTreeSet::new(), BTreeSet::new());
        for reference in &self.references {
            let Reference { module, path, line, global, import } = reference;
            let from = self.module(module).file.clone();
            let target = match global {
                true => Target::Elsewhere(path.clone()),
                false => self.resolve(module, path, import.as_deref(), DEPTH),
            };
            let arrow = |to: String| Arrow { from: from.clone(), to, line: *line, path: path.join("::") };
            let (file, behind) = match target {
                Target::Module(module) => (Some(self.module(&module).file.clone()), None),
                Target::Item(module, behind) => (Some(self.module(&module).file.clone()), behind),
                Target::Elsewhere(path) => (None, Some(path)),
            };
            within.extend(file.filter(|file| *file != from).map(&arrow));
            out.extend(behind.map(|path| arrow(path.join("::"))));
        }
        (within.into_iter().collect(), out.into_iter().collect())
    }
}

/// The sets of nodes that lead to each other.
pub fn circles<'a>(arrows: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Vec<String>> {
    let mut next = BTreeMap::<&str, BTreeSet<&str>>::new();
    for (from, to) in arrows {
        next.entry(from).or_default().insert(to);
    }
    let reachable = |start: &'a str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(node) = open.pop() {
            open.extend(next.get(node).into_iter().flatten().copied().filter(|node| seen.insert(*node)));
        }
        seen
    };
    let from: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|node| (*node, reachable(node))).collect();
    let leads = |a: &str, b: &str| from.get(a).is_some_and(|seen| seen.contains(b));
    let circle = |node: &&str| -> Vec<String> {
        from.keys().filter(|other| leads(node, other) && leads(other, node)).map(|other| (*other).to_owned()).collect()
    };
    from.keys().map(circle).filter(|circle| circle.len() > 1).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The member of `folder` to which a file belongs: a file by its name, or a folder; with a folder its file `mod.rs`, or the
/// file of the same name beside it. `None` for what is outside.
pub fn member<'a>(folder: &str, file: &'a str) -> Option<&'a str> {
    let below = match folder {
        "" => file,
        folder => file.strip_prefix(folder)?.strip_prefix('/')?,
    };
    Some(below.split_once('/').map_or_else(|| below.strip_suffix(".rs").unwrap_or(below), |(member, _)| member))
}

/// The arrows between the members of a folder.
pub fn within<'a>(folder: &str, arrows: &'a [Arrow]) -> BTreeMap<(&'a str, &'a str), Vec<&'a Arrow>> {
    let mut found = BTreeMap::<_, Vec<&Arrow>>::new();
    for arrow in arrows {
        if let (Some(from), Some(to)) = (member(folder, &arrow.from), member(folder, &arrow.to))
            && from != to
        {
            found.entry((from, to)).or_default().push(arrow);
        }
    }
    found
}

/// Every folder of these files, the root as "".
pub fn folders<'a>(files: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let of = |file: &'a str| file.match_indices('/').map(move |(at, _)| &file[..at]);
    std::iter::once("").chain(files.flat_map(of)).collect()
}

/// The names in all the paths of a file, with the lines on which they stand, but for what is compiled for tests alone.
pub fn names(syntax: &syn::File) -> Vec<(String, usize)> {
    struct Names(Vec<(String, usize)>);
    impl<'ast> Visit<'ast> for Names {
        fn visit_item(&mut self, item: &'ast syn::Item) {
            if !references::is_for_tests(references::attributes(item)) {
                visit::visit_item(self, item);
            }
        }

        fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
            self.0.push((segment.ident.to_string(), segment.ident.span().start().line));
            visit::visit_path_segment(self, segment);
        }

        fn visit_macro(&mut self, called: &'ast syn::Macro) {
            for (path, line) in references::paths_in(called.tokens.clone(), 1) {
                self.0.extend(path.into_iter().map(|name| (name, line)));
            }
            visit::visit_macro(self, called);
        }

        fn visit_use_tree(&mut self, tree: &'ast syn::UseTree) {
            if let syn::UseTree::Name(syn::UseName { ident, .. }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) =
                tree
            {
                self.0.push((ident.to_string(), ident.span().start().line));
            }
            visit::visit_use_tree(self, tree);
        }
    }
    let mut names = Names(Vec::new());
    names.visit_file(syntax);
    names.0
}
