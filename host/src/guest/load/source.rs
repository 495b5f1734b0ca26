//! A revision: one component file, read, checked, compiled and linked. Every way in which a file can be wrong ends here
//! in one sentence that says what to do.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime_wasi_http::{p2, p3};

use super::compiler;
use super::instance::Linked;
use super::precompiled::{self, Precompiled};
use super::store::{self, OFFERED};
use crate::settings::{GuestSettings, STANDARD_STREAM};

/// What a component must export, without the version: this in 0.2.x…
const HANDLER_0_2: &str = "wasi:http/incoming-handler";
/// … or this in 0.3.x.
const HANDLER_0_3: &str = "wasi:http/handler";
/// Both, for people.
const HANDLERS: &str = "wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.x";

/// How alike (Jaro-Winkler, 0 to 1) names of different packages must be for one to be meant by the other.
const ALIKE: f64 = 0.93;

/// What is known of the component that is served.
#[derive(Debug, Clone)]
pub struct Revision {
    /// The file that it was read from.
    pub file: PathBuf,
    /// SHA-256 of the file, in hex.
    pub digest: String,
    /// Size of the file in bytes.
    pub size: usize,
    /// The world that the host serves it as, by the version of the handler that it exports.
    pub world: String,
    /// The interfaces that it imports, in its own order.
    pub imports: Vec<String>,
}

impl Revision {
    /// Enough of the digest to tell versions apart: its first 12 digits.
    pub fn short_digest(&self) -> &str {
        self.digest.get(..12).unwrap_or(&self.digest)
    }

    /// For the admin endpoint `/version`.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.file.display().to_string(),
            "digest": format!("sha256:{}", self.digest),
            "size": self.size,
            "world": self.world,
            "imports": self.imports,
        })
    }
}

/// A component file as it was read.
pub struct Source<'a> {
    settings: &'a GuestSettings,
    bytes: Vec<u8>,
    /// What it says of itself, if it is precompiled.
    sealed: Option<Precompiled>,
    concurrent: bool,
}

impl<'a> Source<'a> {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or is precompiled and may not be served, or is damaged.
    pub fn read(settings: &'a GuestSettings) -> anyhow::Result<Self> {
        let (file, bytes) = (settings.component.display(), read(&settings.component)?);
        if !precompiled::is_sealed(&bytes) {
            let concurrent = compiler::is_concurrent(&bytes);
            return Ok(Self { settings, bytes, sealed: None, concurrent });
        }
        if !settings.allow_precompiled {
            bail!(
                "{file} is precompiled; --allow-precompiled serves it, if you trust who made it as you trust the host"
            );
        }
        let sealed = precompiled::open(&bytes).with_context(|| format!("{file} cannot be served"))?;
        Ok(Self { settings, bytes, concurrent: sealed.concurrent, sealed: Some(sealed) })
    }

    /// Whether the component has to do with WASI 0.3, for which the engine must be made.
    pub fn is_concurrent(&self) -> bool {
        self.concurrent
    }

    /// Says in the log what is to be compiled, and whether that may take more than the machine's `memory`, in bytes.
    pub fn announce(&self, memory: u64) {
        if self.sealed.is_some() {
            return;
        }
        let size = self.bytes.len() as u64;
        tracing::info!(file = %self.settings.component.display(), size, "compiling the component");
        if size.saturating_mul(compiler::COST) > memory {
            tracing::warn!(
                size,
                memory,
                "compiling may need more memory than there is: run `taffrail compile` where there is more, and serve what it \
                 writes with --allow-precompiled"
            );
        }
    }

    /// Checks, compiles (if it is not yet) and links it.
    ///
    /// # Errors
    /// One sentence for each way in which the file can be wrong.
    pub fn load(&self, engine: &Engine) -> anyhow::Result<(Revision, Linked)> {
        let (file, bytes) = (self.settings.component.as_path(), &self.bytes);
        let (component, digest, size) = match &self.sealed {
            Some(sealed) => (open(engine, self.settings, bytes, sealed)?, sealed.digest.clone(), sealed.size),
            None => {
                let component = compiler::compile_apart(engine, self.settings.compiler.as_deref(), file, bytes)?;
                (component, precompiled::digest(bytes), bytes.len())
            }
        };
        let (world, imports) = check(engine, file, &component)?;
        let is_0_3 = world.starts_with("wasi:http/service");
        let linked = store::linker(engine, self.concurrent)
            .and_then(|mut linker| {
                for name in types_alone(engine, &component).filter(|name| name.starts_with(HANDLER_0_3)) {
                    linker.instance(&name)?;
                }
                linker.instantiate_pre(&component)
            })
            .and_then(|linked| {
                Ok(if is_0_3 {
                    Linked::Wasi03(p3::bindings::ServicePre::new(linked)?)
                } else {
                    Linked::Wasi02(p2::bindings::ProxyPre::new(linked)?)
                })
            })
            .map_err(anyhow::Error::from)
            .with_context(|| format!("{} was built against another definition of an interface", file.display()))?;
        Ok((Revision { file: file.to_owned(), digest, size, world, imports }, linked))
    }
}

/// Compiles a component file for later: what `taffrail compile` writes.
///
/// # Errors
/// As [`Source::load`].
pub fn precompile(file: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = read(file)?;
    let concurrent = compiler::is_concurrent(&bytes);
    let engine = super::engine::compiler(concurrent)?;
    let component = compiler::compile(&engine, file, &bytes)?;
    check(&engine, file, &component)?;
    Ok(precompiled::seal(&component.serialize()?, &bytes, concurrent))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new(STANDARD_STREAM) {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot read the component from standard input")?;
        return Ok(bytes);
    }
    std::fs::read(file).with_context(|| format!("cannot read the component {}", file.display()))
}

/// Takes precompiled code, or compiles the fallback where that is of another version.
fn open(engine: &Engine, settings: &GuestSettings, bytes: &[u8], found: &Precompiled) -> anyhow::Result<Component> {
    let file = settings.component.display();
    let error = match compiler::load(engine, &bytes[..found.code]) {
        Ok(component) => return Ok(component),
        Err(error) => anyhow::Error::from(error),
    };
    let made_by = &found.made_by;
    let Some(fallback) = &settings.fallback else {
        return Err(error.context(format!(
            "{file} was compiled by another host ({made_by}; this is {}), for another CPU or with other settings: run \
             `taffrail compile` of this host again, or name its component as --fallback",
            env!("CARGO_PKG_VERSION")
        )));
    };
    let component = read(fallback)?;
    if precompiled::digest(&component) != found.digest {
        bail!("{} (--fallback) is not the component that {file} was made from", fallback.display());
    }
    tracing::warn!(
        made_by,
        error = format!("{error:#}"),
        fallback = %fallback.display(),
        "the precompiled component is of another host: compiling the fallback"
    );
    compiler::compile_apart(engine, settings.compiler.as_deref(), fallback, &component)
}

/// The world that a component is served as, and what it imports.
fn check(engine: &Engine, file: &Path, component: &Component) -> anyhow::Result<(String, Vec<String>)> {
    let kind = component.component_type();
    let imports: Vec<String> = kind.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let world = handler_world(&exports).with_context(|| format!("{} cannot serve HTTP", file.display()))?;
    let types: Vec<String> = types_alone(engine, component).collect();
    let asked = imports.iter().filter(|import| !(types.contains(import) && import.starts_with(HANDLER_0_3)));
    check_imports(asked).with_context(|| format!("{} asks for what the host does not offer", file.display()))?;
    Ok((world, imports))
}

/// The imported interfaces of which only types are used. A component of the world `wasi:http/middleware` imports the handler
/// like that when it calls none.
fn types_alone(engine: &Engine, component: &Component) -> impl Iterator<Item = String> {
    let kind = component.component_type();
    let types_alone = |item: ComponentItem| match item {
        ComponentItem::ComponentInstance(instance) => {
            !instance.exports(engine).any(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
        }
        _ => false,
    };
    let imports: Vec<_> = kind.imports(engine).map(|(name, item)| (name.to_owned(), types_alone(item.ty))).collect();
    imports.into_iter().filter(|(_, types)| *types).map(|(name, _)| name)
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

/// Of an interface.
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
