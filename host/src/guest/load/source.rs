//! One component file: read, compiled (or taken as it was precompiled) and linked.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime_wasi_http::{p2, p3};

use super::compiler::{self, Components, Interrupt, STANDARD_STREAM};
use super::imports::{check, types_alone};
use super::precompiled::{self, Precompiled};
use crate::config::GuestSettings;
use crate::guest::engine::{self, Engines};
use crate::guest::instance::Linked;
use crate::guest::store;

/// How often a component's bytes are in memory at start, at the least: as they are read, and as code.
const COPIES: u64 = 2;

/// What is known of the component that is served.
#[derive(Debug, Clone)]
pub(crate) struct Revision {
    /// The file that it was read from.
    pub(crate) file: PathBuf,
    /// SHA-256 of the file, in hex.
    pub(crate) digest: String,
    /// Size of the file in bytes.
    pub(crate) size: usize,
    /// The world that the host serves it as, by the version of the handler that it exports.
    pub(crate) world: String,
    /// The interfaces that it imports, in its own order.
    pub(crate) imports: Vec<String>,
}

impl Revision {
    /// Enough of the digest to tell versions apart: its first 12 digits.
    pub(crate) fn short_digest(&self) -> &str {
        self.digest.get(..12).unwrap_or(&self.digest)
    }

    /// What the admin endpoint `/version` says of it.
    pub(crate) fn json(&self) -> serde_json::Value {
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
pub(crate) struct Source<'a> {
    settings: &'a GuestSettings,
    bytes: Vec<u8>,
    /// What it says of itself, if it is precompiled.
    sealed: Option<Precompiled>,
    concurrent: bool,
    /// Of the machine, in bytes.
    memory: u64,
}

impl<'a> Source<'a> {
    /// Reads the file, where the machine has so much memory, in bytes.
    ///
    /// # Errors
    /// When it cannot be read, or is too large for that, or is precompiled and may not be served, or is damaged.
    pub(crate) fn read(settings: &'a GuestSettings, memory: u64) -> anyhow::Result<Self> {
        let (file, bytes) = (settings.component.display(), read(&settings.component, memory)?);
        if !precompiled::is_sealed(&bytes) {
            let concurrent = compiler::is_concurrent(&bytes);
            return Ok(Self { settings, bytes, sealed: None, concurrent, memory });
        }
        if !settings.allow_precompiled {
            bail!(
                "{file} is precompiled; --allow-precompiled serves it, if you trust who made it as you trust the host"
            );
        }
        let sealed = precompiled::open(&bytes).with_context(|| format!("{file} cannot be served"))?;
        Ok(Self { settings, bytes, concurrent: sealed.concurrent, sealed: Some(sealed), memory })
    }

    /// Whether the component has to do with WASI 0.3, for which the engine must be made.
    pub(crate) fn is_concurrent(&self) -> bool {
        self.concurrent
    }

    /// Says in the log what is to be compiled, and whether that may take more than the machine's memory.
    pub(crate) fn announce(&self) {
        if self.sealed.is_some() {
            return;
        }
        let (size, memory) = (self.bytes.len() as u64, self.memory);
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

    /// Checks, compiles (if it is not yet) and links it. `interrupt` ends the compiler, if that is a process of its own.
    ///
    /// # Errors
    /// One sentence for each way in which the file can be wrong.
    pub(crate) fn load(
        &self,
        engines: &Engines,
        interrupt: &Interrupt,
    ) -> anyhow::Result<(Revision, Linked, Option<Linked>)> {
        let (file, bytes) = (self.settings.component.as_path(), &self.bytes);
        let (components, digest, size) = match &self.sealed {
            Some(sealed) => (open(engines, self, interrupt, sealed)?, sealed.digest.clone(), sealed.size),
            None => {
                let components =
                    compiler::compile_apart(engines, self.settings.compiler.as_deref(), interrupt, file, bytes)?;
                (components, precompiled::digest(bytes), bytes.len())
            }
        };
        let (world, imports) = check(&engines.all, file, &components.all)?;
        let is_0_3 = world.starts_with("wasi:http/service");
        let link = |engine: &Engine, component: &Component| self.link(engine, component, is_0_3);
        let all = link(&engines.all, &components.all)?;
        let warm = engines
            .warm
            .as_ref()
            .zip(components.warm)
            .map(|(engine, component)| link(engine, &component))
            .transpose()?;
        Ok((Revision { file: file.to_owned(), digest, size, world, imports }, all, warm))
    }

    fn link(&self, engine: &Engine, component: &Component, is_0_3: bool) -> anyhow::Result<Linked> {
        let linked = store::linker(engine, self.concurrent)
            .and_then(|mut linker| {
                for name in types_alone(engine, component) {
                    linker.instance(&name)?;
                }
                linker.instantiate_pre(component)
            })
            .and_then(|linked| {
                Ok(if is_0_3 {
                    Linked::Wasi03(p3::bindings::ServicePre::new(linked)?)
                } else {
                    Linked::Wasi02(p2::bindings::ProxyPre::new(linked)?)
                })
            });
        let file = self.settings.component.display();
        linked
            .map_err(anyhow::Error::from)
            .with_context(|| format!("{file} was built against another definition of an interface"))
    }
}

/// Compiles a component file for later: what `taffrail compile` writes.
///
/// # Errors
/// As [`Source::load`].
pub(crate) fn precompile(file: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = read(file, u64::MAX)?; // who compiles has chosen the machine for it
    let concurrent = compiler::is_concurrent(&bytes);
    let engine = engine::compiler(concurrent)?;
    let component = compiler::compile(&engine, file, &bytes)?;
    check(&engine, file, &component)?;
    Ok(precompiled::seal(&component.serialize()?, &bytes, concurrent))
}

/// Reads a file of which a machine with so much memory can hold a copy as well: what is compiled or loaded from it is no smaller. A
/// larger one would have the process killed, without a word.
fn read(file: &Path, memory: u64) -> anyhow::Result<Vec<u8>> {
    let most = memory / COPIES;
    let (name, mut bytes) = (file.display(), Vec::new());
    let said = if file == Path::new(STANDARD_STREAM) {
        reserve(&mut bytes, most);
        std::io::stdin()
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)
            .context("cannot read the component from standard input")?;
        None
    } else {
        let cannot = || format!("cannot read the component {name}");
        let opened = std::fs::File::open(file).with_context(cannot)?;
        let size = opened.metadata().with_context(cannot)?.len();
        if size <= most {
            reserve(&mut bytes, if size == 0 { most } else { size }); // a pipe, say, has no size
            opened.take(most.saturating_add(1)).read_to_end(&mut bytes).with_context(cannot)?;
        }
        Some(size)
    };
    let size = said.unwrap_or_default().max(bytes.len() as u64);
    if size > most {
        bail!(
            "{name} is too large for this machine: it has {size} bytes or more, and {COPIES} times that would have to fit into \
             {memory} bytes of memory; raise the memory limit, or leave out of the component what it does not need"
        );
    }
    Ok(bytes)
}

/// Room for so many bytes, as far as there is: it costs nothing until they come, and what grows later would be there twice.
fn reserve(bytes: &mut Vec<u8>, most: u64) {
    let _ = bytes.try_reserve_exact(usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1));
}

/// Takes precompiled code, or compiles the fallback where that is of another version.
fn open(
    engines: &Engines,
    source: &Source<'_>,
    interrupt: &Interrupt,
    found: &Precompiled,
) -> anyhow::Result<Components> {
    let settings = source.settings;
    let file = settings.component.display();
    let error = match compiler::load(engines, &source.bytes[..found.code]) {
        Ok(components) => return Ok(components),
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
    let component = read(fallback, source.memory)?;
    if precompiled::digest(&component) != found.digest {
        bail!("{} (--fallback) is not the component that {file} was made from", fallback.display());
    }
    tracing::warn!(
        made_by,
        error = format!("{error:#}"),
        fallback = %fallback.display(),
        "the precompiled component is of another host: compiling the fallback"
    );
    compiler::compile_apart(engines, settings.compiler.as_deref(), interrupt, fallback, &component)
}
