//! What a component must export and may import. Every way in which it can ask for the wrong thing ends here in one sentence
//! that says what to do.

use std::path::Path;

use anyhow::{Context as _, bail};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::guest::store::OFFERED;

/// What a component must export, without the version: this in 0.2.x…
const HANDLER_0_2: &str = "wasi:http/incoming-handler";
/// … or this in 0.3.x.
const HANDLER_0_3: &str = "wasi:http/handler";
/// Both, as messages name them.
const HANDLERS: &str = "wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.x";

/// How alike (Jaro-Winkler, 0 to 1) names of different packages must be for one to be meant by the other.
const ALIKE: f64 = 0.93;

/// The world that a component is served as, and what it imports.
pub(crate) fn check(engine: &Engine, file: &Path, component: &Component) -> anyhow::Result<(String, Vec<String>)> {
    let kind = component.component_type();
    let imports: Vec<String> = kind.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let world = handler_world(&exports).with_context(|| format!("{} cannot serve HTTP", file.display()))?;
    let types: Vec<String> = types_alone(engine, component).collect();
    let asked = imports.iter().filter(|import| !types.contains(import));
    check_imports(asked).with_context(|| format!("{} asks for what the host does not offer", file.display()))?;
    Ok((world, imports))
}

/// The handlers of WASI 0.3 that a component imports for their types alone, as one of the world `wasi:http/middleware` does
/// when it calls none.
pub(crate) fn types_alone(engine: &Engine, component: &Component) -> impl Iterator<Item = String> {
    let kind = component.component_type();
    let types_alone = |item: ComponentItem| match item {
        ComponentItem::ComponentInstance(instance) => {
            !instance.exports(engine).any(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
        }
        _ => false,
    };
    let imports: Vec<_> = kind.imports(engine).map(|(name, item)| (name.to_owned(), types_alone(item.ty))).collect();
    imports.into_iter().filter(|(name, types)| *types && name.starts_with(HANDLER_0_3)).map(|(name, _)| name)
}

/// The world for the handler among the exports: `wasi:http/service@0.3.x` or, where that is not there, `wasi:http/proxy@0.2.x`.
fn handler_world(exports: &[String]) -> anyhow::Result<String> {
    let version = |interface: &str| exports.iter().find_map(|export| export.strip_prefix(interface)?.strip_prefix('@'));
    for (interface, line, world) in [(HANDLER_0_3, "0.3.", "service"), (HANDLER_0_2, "0.2.", "proxy")] {
        match version(interface) {
            // A candidate of a release is not compatible with it.
            Some(version) if version.starts_with(line) && !version.contains('-') => {
                return Ok(format!("wasi:http/{world}@{version}"));
            }
            Some(version) => {
                bail!("it exports {interface}@{version}; the host serves {line}x: rebuild it against that")
            }
            None => {}
        }
    }
    if exports.is_empty() {
        bail!("it exports nothing; it must export {HANDLERS}");
    }
    if version("wasi:cli/run").is_some() {
        bail!("it is a command, which is run once: build a library (crate-type cdylib) that exports {HANDLERS}");
    }
    bail!("it exports {}; it must export {HANDLERS}", exports.join(", "))
}

/// Names every import that the host does not offer: the nearest one that it does, or the version that it has.
fn check_imports<'a>(imports: impl Iterator<Item = &'a String>) -> anyhow::Result<()> {
    let unknown: Vec<String> = imports.filter_map(|import| import_fault(import)).collect();
    if unknown.is_empty() { Ok(()) } else { bail!("{}", unknown.join("; ")) }
}

/// The package of an interface: `wasi:http` of `wasi:http/types`.
fn package(interface: &str) -> &str {
    interface.split('/').next().unwrap_or_default()
}

fn import_fault(import: &str) -> Option<String> {
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    if [HANDLER_0_2, HANDLER_0_3].contains(&interface) {
        return Some(format!(
            "it imports {import}, so it is middleware: compose it with the component behind it (`wac plug`)"
        ));
    }
    let matches = |versions: &str| match versions.strip_suffix('x') {
        Some(line) => version.starts_with(line) && !version.contains('-'),
        None => version == versions,
    };
    let versions_of = |interface: &str| -> Vec<&str> {
        OFFERED.iter().filter(|(name, _)| *name == interface).map(|(_, versions)| *versions).collect()
    };
    let versions = versions_of(interface);
    if versions.iter().any(|versions| matches(versions)) {
        return None;
    }
    if !versions.is_empty() {
        let versions = versions.join(" and ");
        return Some(format!("it imports {import}; the host offers {interface}@{versions}: rebuild it against that"));
    }
    let similarity = |offered: &str| strsim::jaro_winkler(interface, offered);
    let (nearest, _) = OFFERED.iter().max_by(|(a, _), (b, _)| similarity(a).total_cmp(&similarity(b)))?;
    if package(nearest) != package(interface) && similarity(nearest) < ALIKE {
        return Some(format!("it imports {import}, which the host does not offer: build it without"));
    }
    let versions = versions_of(nearest).join(" and ");
    Some(format!("it imports {import}; the nearest that the host offers is {nearest}@{versions}"))
}
