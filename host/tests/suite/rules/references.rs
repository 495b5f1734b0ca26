//! Every path in a source file: of imports, in expressions, types and patterns, and in the tokens of macros and attributes.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta};

use super::imports::{Module, ModulePath};

/// A path of two names or more, where it stands.
#[derive(Debug)]
pub struct Reference {
    pub module: ModulePath,
    pub path: Vec<String>,
    pub line: usize,
    /// Whether it begins with `::`, so that its first name is a crate.
    pub global: bool,
    /// The name that it gives to what it imports.
    pub import: Option<String>,
}

/// What a file holds.
pub struct Found {
    pub modules: Vec<(ModulePath, Module)>,
    pub references: Vec<Reference>,
    /// Modules that are compiled for tests alone, in files of their own or in this one.
    pub of_tests: Vec<ModulePath>,
}

pub fn collect(module: ModulePath, file: &str, syntax: &syn::File) -> Found {
    let mut collector = Collector {
        file,
        open: vec![(module, Module { file: file.to_owned(), ..Module::default() })],
        found: Found { modules: Vec::new(), references: Vec::new(), of_tests: Vec::new() },
    };
    collector.visit_file(syntax);
    let Collector { open, mut found, .. } = collector;
    found.modules.extend(open);
    found
}

/// Whether the compiler leaves it out but for tests: `#[cfg(test)]`, `#[cfg(all(test, …))]`, a test itself.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    fn needs_test(condition: &Meta) -> bool {
        match condition {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => list
                .parse_args_with(syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated)
                .is_ok_and(|conditions| conditions.iter().any(needs_test)),
            Meta::List(_) | Meta::NameValue(_) => false,
        }
    }
    attributes.iter().any(|attribute| {
        let is_test = attribute.path().segments.last().is_some_and(|last| last.ident == "test");
        is_test
            || attribute.path().is_ident("cfg") && attribute.parse_args::<Meta>().is_ok_and(|meta| needs_test(&meta))
    })
}

pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The paths of at least `shortest` names in tokens, and their lines.
pub fn paths_in(tokens: TokenStream, shortest: usize) -> Vec<(Vec<String>, usize)> {
    let mut found: Vec<(Vec<String>, usize)> = Vec::new();
    let mut path: Option<(Vec<String>, usize)> = None;
    let mut colons = 0; // seen since the last name
    for token in tokens {
        match token {
            TokenTree::Ident(name) => match &mut path {
                Some((names, _)) if colons == 2 => names.push(name.to_string()),
                _ => found.extend(path.replace((vec![name.to_string()], name.span().start().line))),
            },
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                continue;
            }
            TokenTree::Group(group) => {
                found.extend(path.take());
                found.extend(paths_in(group.stream(), shortest));
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => found.extend(path.take()),
        }
        colons = 0;
    }
    found.extend(path);
    found.retain(|(names, _)| names.len() >= shortest);
    found
}

struct Collector<'a> {
    file: &'a str,
    /// The modules in which the visitor is, the innermost last.
    open: Vec<(ModulePath, Module)>,
    found: Found,
}

impl Collector<'_> {
    fn here(&mut self) -> (&ModulePath, &mut Module) {
        let (path, module) = self.open.last_mut().expect("the file's own module");
        (path, module)
    }

    fn refer(&mut self, path: Vec<String>, line: usize, global: bool, import: Option<String>) {
        let module = self.here().0.clone();
        self.found.references.push(Reference { module, path, line, global, import });
    }

    fn refer_to_tokens(&mut self, tokens: TokenStream) {
        for (path, line) in paths_in(tokens, 2) {
            self.refer(path, line, false, None);
        }
    }

    fn import(&mut self, before: &[String], tree: &syn::UseTree, global: bool) {
        let joined = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        let (name, path, line) = match tree {
            syn::UseTree::Path(path) => return self.import(&joined(&path.ident), &path.tree, global),
            syn::UseTree::Group(group) => return group.items.iter().for_each(|tree| self.import(before, tree, global)),
            syn::UseTree::Glob(glob) => {
                self.here().1.globs.push(before.to_vec());
                return self.refer(before.to_vec(), glob.star_token.spans[0].start().line, global, None);
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                let last = before.last().expect("a group has something before it").clone();
                (last, before.to_vec(), name.ident.span().start().line)
            }
            syn::UseTree::Name(name) => (name.ident.to_string(), joined(&name.ident), name.ident.span().start().line),
            syn::UseTree::Rename(rename) => {
                let path = if rename.ident == "self" { before.to_vec() } else { joined(&rename.ident) };
                (rename.rename.to_string(), path, rename.ident.span().start().line)
            }
        };
        self.here().1.imports.insert(name.clone(), path.clone());
        self.refer(path, line, global, Some(name));
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_for_tests(attributes(item)) {
            if let Item::Mod(module) = item {
                let path = self.here().0.iter().cloned().chain([module.ident.to_string()]).collect();
                self.found.of_tests.push(path);
            }
            return;
        }
        let name = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Macro(item) => item.ident.as_ref(),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        if let Some(name) = name {
            self.here().1.items.insert(name.to_string());
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let elsewhere = item.attrs.iter().any(|attribute| attribute.path().is_ident("path"));
        assert!(!elsewhere, "{}: a module with #[path] is in a file that nobody finds", self.file);
        let (path, module) = self.here();
        module.children.insert(item.ident.to_string());
        if let Some((_, items)) = &item.content {
            let path = path.iter().cloned().chain([item.ident.to_string()]).collect();
            self.open.push((path, Module { file: self.file.to_owned(), ..Module::default() }));
            items.iter().for_each(|item| self.visit_item(item));
            self.found.modules.extend(self.open.pop());
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&[], &item.tree, item.leading_colon.is_some());
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let path = vec![item.ident.to_string()];
        let name = item.rename.as_ref().map_or_else(|| item.ident.to_string(), |(_, name)| name.to_string());
        self.here().1.imports.insert(name, path.clone());
        self.refer(path, item.ident.span().start().line, true, None);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    /// `pub(in crate::x)` says who may use it, and uses nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let global = path.leading_colon.is_some();
        if path.segments.len() > 1 || global {
            let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.refer(names, path.segments[0].ident.span().start().line, global, None);
        }
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.refer_to_tokens(list.tokens.clone());
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.refer_to_tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }
}
