//! The compiler, in a process of its own where that can be: what it takes of memory is gone with it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, bail};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::precompiled;
use crate::guest::engine::Engines;

/// As the name of a file: standard input or output.
pub(crate) const STANDARD_STREAM: &str = "-";

/// Memory that the compiler takes for each byte of a component: measured were 39 for one of JavaScript (13 MB) and 24 for one
/// of Python (21 MB).
pub(crate) const COST: u64 = 40;

/// Compiles a component.
///
/// # Errors
/// What is wrong with the file.
#[cfg(feature = "compiler")]
pub(crate) fn compile(engine: &Engine, file: &Path, bytes: &[u8]) -> anyhow::Result<Component> {
    check_kind(bytes).with_context(|| format!("{} is not a component", file.display()))?;
    Component::from_binary(engine, bytes).map_err(|error| too_large(file, error.into()))
}

/// Why compiled code cannot be loaded.
fn too_large(file: &Path, error: anyhow::Error) -> anyhow::Error {
    let what = match format!("{error:#}").contains("pooling allocator") {
        true => "starts with more than an instance may have: raise --guest-memory or --guest-table-elements",
        false => "cannot be compiled",
    };
    error.context(format!("{} {what}", file.display()))
}

/// Has another process of this binary compile, where that is known: what it took of memory, many times the component's
/// size, is then gone for good.
///
/// # Errors
/// What is wrong with the file, or how the compiler ended.
pub(crate) fn compile_apart(
    engines: &Engines,
    binary: Option<&Path>,
    interrupt: &Interrupt,
    file: &Path,
    bytes: &[u8],
) -> anyhow::Result<Components> {
    let here = || {
        let all = compile(&engines.all, file, bytes)?;
        let code = all.serialize()?;
        drop(all);
        load(engines, &code).map_err(|error| too_large(file, error.into()))
    };
    let Some(binary) = binary.filter(|_| cfg!(feature = "compiler")) else { return here() };
    check_kind(bytes).with_context(|| format!("{} is not a component", file.display()))?;
    let Some(compiled) = another_process(binary, interrupt, file, bytes)? else { return here() };
    let found = precompiled::open(&compiled).context("the compiler was interrupted")?;
    load(engines, &compiled[..found.code]).map_err(|error| too_large(file, error.into()))
}

/// A component on each of the engines.
pub(crate) struct Components {
    pub(crate) all: Component,
    pub(crate) warm: Option<Component>,
}

/// Compiled code is at the most so many times as large as its component: measured were 2.9 to 4.5.
const GROWTH: usize = 8;

/// The process of the compiler, which can be ended while another thread waits for what it writes. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<Mutex<Compiling>>);

#[derive(Debug, Default)]
struct Compiling {
    interrupted: bool,
    process: Option<Child>,
}

/// Interrupts when it is dropped.
#[derive(Debug)]
pub(crate) struct InterruptOnDrop(Interrupt);

impl Interrupt {
    /// A guard: when it goes, a compiler that runs is killed, and none is started any more.
    pub(crate) fn on_drop(&self) -> InterruptOnDrop {
        InterruptOnDrop(self.clone())
    }

    fn spawn(&self, command: &mut Command) -> std::io::Result<Pipes> {
        let mut compiling = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if compiling.interrupted {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let process = compiling.process.insert(command.spawn()?);
        Ok((process.stdin.take(), process.stdout.take(), process.stderr.take()))
    }

    /// Once its pipes are closed the process has ended, or does so at once.
    fn wait(&self) -> std::io::Result<ExitStatus> {
        let mut compiling = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = compiling.process.as_mut().map_or_else(|| Err(std::io::ErrorKind::NotFound.into()), Child::wait);
        compiling.process = None;
        ended
    }
}

type Pipes = (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        let mut compiling = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        compiling.interrupted = true;
        if let Some(process) = &mut compiling.process {
            let _ = process.kill(); // it may have ended by itself
        }
    }
}

/// What another process has compiled; `None` where none can be had.
fn another_process(
    compiler: &Path,
    interrupt: &Interrupt,
    file: &Path,
    bytes: &[u8],
) -> anyhow::Result<Option<Vec<u8>>> {
    let mut command = Command::new(compiler);
    command.args(["compile", STANDARD_STREAM, "--output", STANDARD_STREAM]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (input, output, errors) = match interrupt.spawn(&mut command) {
        Ok(pipes) => pipes,
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => bail!("the start was interrupted"),
        Err(error) => {
            tracing::warn!(%error, "no process for the compiler: compiling in this one, which will keep some of the memory");
            return Ok(None);
        }
    };
    let mut compiled = Vec::with_capacity(bytes.len() * GROWTH); // what stays untouched of it costs nothing
    let mut said = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| input.map(|mut input| input.write_all(bytes))); // a compiler that ends early says why itself
        scope.spawn(|| errors.map(|mut errors| errors.read_to_end(&mut said)));
        output.map_or(Ok(0), |mut output| output.read_to_end(&mut compiled))
    })?;
    let status = interrupt.wait()?;
    if status.success() {
        return Ok(Some(compiled));
    }
    let said = String::from_utf8_lossy(&said);
    match said.trim_end().strip_prefix("error: - ") {
        Some(said) => bail!("{} {said}", file.display()),
        None => bail!(
            "{}: the compiler ended with {}{}; when memory is short, run `taffrail compile` where there is more, and serve what it \
             writes with --allow-precompiled",
            file.display(),
            status,
            if said.is_empty() { String::new() } else { format!(" ({})", said.trim_end()) }
        ),
    }
}

/// Code that this version of wasmtime has compiled. It is in memory once for all engines: in a file of memory, which each maps.
pub(crate) fn load(engines: &Engines, code: &[u8]) -> wasmtime::Result<Components> {
    let Some(warm) = &engines.warm else {
        return Ok(Components { all: load_one(&engines.all, code, None)?, warm: None });
    };
    let file = memory_file(code)
        .inspect_err(|error| tracing::debug!(%error, "no file of memory: the code is there twice"))
        .ok();
    let all = load_one(&engines.all, code, file.as_ref())?;
    Ok(Components { all, warm: Some(load_one(warm, code, file.as_ref())?) })
}

fn load_one(engine: &Engine, code: &[u8], file: Option<&File>) -> wasmtime::Result<Component> {
    #[allow(
        unsafe_code,
        reason = "this binary has just compiled it, or the operator trusts the file by --allow-precompiled; the seal finds what is \
                  damaged, and nobody else has the file of memory"
    )]
    unsafe {
        match file.map(|file| Component::deserialize_file(engine, format!("/proc/self/fd/{}", file.as_raw_fd()))) {
            Some(Ok(component)) => Ok(component),
            _ => Component::deserialize(engine, code), // and it has the error to show
        }
    }
}

fn memory_file(code: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("component", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(code)?;
    Ok(file)
}

/// There is no compiler.
///
/// # Errors
/// Always.
#[cfg(not(feature = "compiler"))]
pub(crate) fn compile(_: &Engine, file: &Path, bytes: &[u8]) -> anyhow::Result<Component> {
    check_kind(bytes).with_context(|| format!("{} is not a component", file.display()))?;
    bail!(
        "{} must be compiled, and this build of the host has no compiler: run `taffrail compile` of a whole build, and \
         serve what it writes with --allow-precompiled",
        file.display()
    )
}

/// Whether a component imports or exports anything of WASI 0.3, itself or a component within it. What cannot be read is
/// none: its compilation says what is wrong with it.
#[cfg(feature = "compiler")]
pub(crate) fn is_concurrent(bytes: &[u8]) -> bool {
    use wasmparser::Payload::{ComponentExportSection, ComponentImportSection};
    let is_0_3 = |name: &str| name.starts_with("wasi:") && name.contains("@0.3.");
    wasmparser::Parser::new(0).parse_all(bytes).map_while(Result::ok).any(|payload| match payload {
        ComponentImportSection(imports) => imports.into_iter().flatten().any(|import| is_0_3(import.name.name)),
        ComponentExportSection(exports) => exports.into_iter().flatten().any(|export| is_0_3(export.name.name)),
        _ => false,
    })
}

/// Only the compiler's build reads components.
#[cfg(not(feature = "compiler"))]
pub(crate) fn is_concurrent(_: &[u8]) -> bool {
    false
}

/// Tells a component from everything else that a file may hold, by its first eight bytes.
fn check_kind(bytes: &[u8]) -> anyhow::Result<()> {
    match bytes {
        [b'\0', b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            bail!("it is a core Wasm module; build it for wasm32-wasip2, or wrap it with `wasm-tools component new`")
        }
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => {
            bail!("it is a component of an unknown binary version; build it with a current toolchain")
        }
        [b'\0', b'a', b's', b'm', ..] => bail!("it is damaged or cut off: its Wasm version is unknown"),
        [0x7f, b'E', b'L', b'F', ..] => {
            bail!("it is a native or precompiled (ELF) file that `taffrail compile` did not write; name the .wasm file")
        }
        [] => bail!("the file is empty"),
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [b'P', b'K', 3, 4, ..] => {
            bail!("it is compressed (gzip, zstd or zip): unpack it, and name the .wasm file inside")
        }
        [b'(', ..] => bail!("it is Wasm in text form: turn it into binary with `wasm-tools parse`"),
        [b'<', ..] => bail!("it is a web page or XML, as a failed download leaves it: fetch the .wasm file again"),
        [b'{', ..] => bail!("it is JSON, perhaps an image's manifest: name the .wasm file that it speaks of"),
        _ => bail!("it is not Wasm at all; name a .wasm file that was built for wasm32-wasip2"),
    }
}
