//! The files of a run: binaries, components, results; which of them are there, and what builds those that are not.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::servers::server::{Component, Form, OTLP, Program, Server, Wasi};

/// The files of a run, and what Taffrail's command line offers.
#[derive(Debug)]
pub struct Artifacts {
    root: PathBuf,
    target: PathBuf,
    taffrail: PathBuf,
    all_off: Option<PathBuf>,
    /// The demo token.
    pub token: String,
    serve_help: String,
    help: String,
}

impl Artifacts {
    /// Finds what every run needs; `taffrail` is a binary that is not the one of the release build, `all_off` one
    /// without telemetry and deadline.
    ///
    /// # Errors
    /// With the command that builds what is missing.
    pub fn find(root: &Path, target: &Path, taffrail: Option<&Path>, all_off: Option<&Path>) -> anyhow::Result<Self> {
        let token = root.join("component/demo-config/auth-tokens");
        let token = std::fs::read_to_string(&token).with_context(|| format!("{} cannot be read", token.display()))?;
        let mut artifacts = Self {
            root: root.to_owned(),
            target: target.to_owned(),
            taffrail: taffrail.map_or_else(|| target.join("release/taffrail"), Path::to_owned),
            all_off: all_off.map(Path::to_owned),
            token: token.lines().next().unwrap_or_default().to_owned(),
            serve_help: String::new(),
            help: String::new(),
        };
        ensure_built(&artifacts.program(Program::Taffrail)?, "make host")?;
        ensure_built(&artifacts.component(Component::Hello, Wasi::V02), "make component")?;
        artifacts.help = artifacts.taffrail(&["--help"])?;
        artifacts.serve_help = artifacts.taffrail(&["serve", "--help"])?;
        Ok(artifacts)
    }

    /// Checks for what these servers need.
    ///
    /// # Errors
    /// With the command that builds what is missing.
    pub fn require(&self, servers: &[Server], echo: bool) -> anyhow::Result<()> {
        for server in servers {
            ensure_built(&self.program(server.program)?, &format!("host/benches/install {}", self.out().display()))?;
        }
        if echo {
            let build = "cargo build --release --package guests --example echo --target wasm32-wasip2";
            ensure_built(&self.component(Component::Echo, Wasi::V02), build)?;
        }
        Ok(())
    }

    /// Where the results and the installed servers are.
    pub fn out(&self) -> PathBuf {
        self.target.join("bench")
    }

    /// The manifest of the image, when `make image-test` has built one.
    pub fn image(&self) -> PathBuf {
        self.target.join("image/images/image/blobs/manifest.json")
    }

    /// The host without the compiler, when `make host-precompiled` has built one.
    pub fn without_compiler(&self) -> PathBuf {
        self.target.join("precompiled/release/taffrail")
    }

    /// The sources.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The program's file.
    ///
    /// # Errors
    /// When the system does not say what file this process is, or nobody has named one.
    pub fn program(&self, program: Program) -> anyhow::Result<PathBuf> {
        Ok(match program {
            Program::Native | Program::Bare => std::env::current_exe()?,
            Program::Taffrail => self.taffrail.clone(),
            Program::AllOff => self.all_off.clone().context("--all-off names no binary")?,
            Program::Wasmtime => self.out().join("wasmtime/bin/wasmtime"),
            Program::Flask => self.out().join("venv/bin/gunicorn"),
        })
    }

    /// A component's .wasm file.
    pub fn component(&self, component: Component, wasi: Wasi) -> PathBuf {
        self.target.join("wasm32-wasip2/release").join(match (component, wasi) {
            (Component::Hello, Wasi::V02) => "hello.wasm",
            (Component::Echo, Wasi::V02) => "examples/echo.wasm",
            (Component::Hello, Wasi::V03) => "examples/hello03.wasm",
            (Component::Echo, Wasi::V03) => "examples/echo03.wasm",
        })
    }

    /// Where the precompiled component of a program is put.
    pub fn precompiled(&self, program: Program) -> PathBuf {
        self.out().join(if program == Program::Wasmtime { "hello.wasmtime.cwasm" } else { "hello.taffrail.cwasm" })
    }

    /// What a server lacks, in its binary or beside it; none when it can be run.
    pub fn missing(&self, server: &Server, component: Component) -> Option<String> {
        if server.program == Program::AllOff && self.all_off.is_none() {
            return Some("--all-off names no binary".to_owned());
        }
        if server.program == Program::Taffrail {
            let flags = server.flags.iter().filter(|flag| flag.starts_with("--"));
            if let Some(flag) = flags.into_iter().find(|flag| !has_word(&self.serve_help, flag)) {
                return Some(format!("taffrail serve has no {flag}"));
            }
            let compiles = || self.help.lines().any(|line| line.trim_start().starts_with("compile "));
            if server.form == Form::Precompiled && !compiles() {
                return Some("taffrail has no compile".to_owned());
            }
            // Variables are no flags: only the binary itself tells whether it knows them.
            let binary = || std::fs::read(&self.taffrail).unwrap_or_default();
            let prefix = OTLP.as_bytes();
            if !server.environment.is_empty() && !binary().windows(prefix.len()).any(|bytes| bytes == prefix) {
                return Some(format!("taffrail reads no {OTLP}…"));
            }
        }
        let file = self.component(component, server.wasi);
        let needed = matches!(server.program, Program::Taffrail | Program::AllOff | Program::Wasmtime);
        (needed && !file.is_file()).then(|| format!("there is no {}", file.file_name().unwrap_or_default().display()))
    }

    fn taffrail(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(self.program(Program::Taffrail)?).args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn ensure_built(file: &Path, command: &str) -> anyhow::Result<()> {
    ensure!(file.is_file(), "{} is missing: run `{command}`", file.display());
    Ok(())
}

/// Whether a help text has the word, and not only a longer one.
fn has_word(text: &str, word: &str) -> bool {
    text.split(|byte: char| !(byte.is_ascii_alphanumeric() || byte == '-')).any(|found| found == word)
}
