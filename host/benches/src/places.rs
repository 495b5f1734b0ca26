//! Where everything lies, what of it is built yet, and how a subject is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::process::Process;
use crate::subjects::{Component, Form, OTLP, Program, Subject, Wasi};

/// Where everything lies, and what Taffrail's command line knows.
#[derive(Debug)]
pub struct Places {
    root: PathBuf,
    target: PathBuf,
    taffrail: PathBuf,
    all_off: Option<PathBuf>,
    /// The demo token.
    pub token: String,
    serve_help: String,
    help: String,
}

impl Places {
    /// Looks for what every run needs; `taffrail` is a binary that is not the one of the release build, `all_off` one
    /// without telemetry and deadline.
    ///
    /// # Errors
    /// With the command that builds what is missing.
    pub fn look(root: &Path, target: &Path, taffrail: Option<&Path>, all_off: Option<&Path>) -> anyhow::Result<Self> {
        let token = root.join("component/demo-config/auth-tokens");
        let token = std::fs::read_to_string(&token).with_context(|| format!("{} cannot be read", token.display()))?;
        let mut places = Self {
            root: root.to_owned(),
            target: target.to_owned(),
            taffrail: taffrail.map_or_else(|| target.join("release/taffrail"), Path::to_owned),
            all_off: all_off.map(Path::to_owned),
            token: token.lines().next().unwrap_or_default().to_owned(),
            serve_help: String::new(),
            help: String::new(),
        };
        built(&places.program(Program::Taffrail)?, "make host")?;
        built(&places.component(Component::Hello, Wasi::V02), "make component")?;
        places.help = places.taffrail(&["--help"])?;
        places.serve_help = places.taffrail(&["serve", "--help"])?;
        Ok(places)
    }

    /// Looks for what these subjects need.
    ///
    /// # Errors
    /// With the command that builds what is missing.
    pub fn require(&self, subjects: &[Subject], echo: bool) -> anyhow::Result<()> {
        for subject in subjects {
            built(&self.program(subject.program)?, &format!("host/benches/install {}", self.out().display()))?;
        }
        if echo {
            let build = "cargo build --release --package guests --example echo --target wasm32-wasip2";
            built(&self.component(Component::Echo, Wasi::V02), build)?;
        }
        Ok(())
    }

    /// Where the results and the installed subjects are.
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
            Program::Native => std::env::current_exe()?,
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
        self.out().join(if program == Program::Taffrail { "hello.taffrail.cwasm" } else { "hello.wasmtime.cwasm" })
    }

    /// What is not built yet of what a subject needs; none when it can be run.
    pub fn not_built(&self, subject: &Subject, component: Component) -> Option<String> {
        if subject.program == Program::AllOff && self.all_off.is_none() {
            return Some("--all-off names no binary".to_owned());
        }
        if subject.program == Program::Taffrail {
            let flags = subject.flags.iter().filter(|flag| flag.starts_with("--"));
            if let Some(flag) = flags.into_iter().find(|flag| !has_word(&self.serve_help, flag)) {
                return Some(format!("taffrail serve has no {flag}"));
            }
            let compiles = || self.help.lines().any(|line| line.trim_start().starts_with("compile "));
            if subject.form == Form::Precompiled && !compiles() {
                return Some("taffrail has no compile".to_owned());
            }
            // Variables are no flags: only the binary itself tells whether it knows them.
            let binary = || std::fs::read(&self.taffrail).unwrap_or_default();
            let prefix = OTLP.as_bytes();
            if !subject.environment.is_empty() && !binary().windows(prefix.len()).any(|bytes| bytes == prefix) {
                return Some(format!("taffrail reads no {OTLP}…"));
            }
        }
        let file = self.component(component, subject.wasi);
        let needed = matches!(subject.program, Program::Taffrail | Program::AllOff | Program::Wasmtime);
        (needed && !file.is_file()).then(|| format!("there is no {}", file.file_name().unwrap_or_default().display()))
    }

    /// Precompiles the hello component for a subject's program.
    ///
    /// # Errors
    /// With what the compiler says.
    pub fn precompile(&self, program: Program) -> anyhow::Result<()> {
        let wasm = self.component(Component::Hello, Wasi::V02);
        let output = Command::new(self.program(program)?)
            .args(["compile".as_ref(), wasm.as_os_str(), "-o".as_ref(), self.precompiled(program).as_os_str()])
            .output()?;
        ensure!(output.status.success(), "cannot precompile: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Starts a subject.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn start(&self, subject: &Subject, component: Component) -> anyhow::Result<Process> {
        let wasm = match subject.form {
            Form::Wasm => self.component(component, subject.wasi),
            Form::Precompiled => self.precompiled(subject.program),
        };
        let mut command = Command::new(self.program(subject.program)?);
        let tokens = format!("auth-tokens={}", self.token);
        let listen = "127.0.0.1:0";
        let marker = match subject.program {
            Program::Native => {
                command.args(["native", "--listen", listen, "--token", &self.token]);
                "listening on "
            }
            Program::Taffrail | Program::AllOff => {
                command.arg("serve").arg(&wasm).args(["--listen", listen, "--admin-listen", listen]);
                command.args(["--config", &tokens, "--access-log", "off", "--log-format", "json"]);
                "\"listen\":\""
            }
            Program::Wasmtime => {
                command.args(["serve", "--addr", listen, "-Scli", "-Sconfig"]).arg(format!("-Sconfig-var={tokens}"));
                command.args(if subject.wasi == Wasi::V03 { &["-Sp3", "-Wcomponent-model-async"][..] } else { &[] });
                "Serving HTTP on http://"
            }
            Program::Flask => {
                // Threads, because gunicorn's other workers close the connection after each response.
                command.args(["--workers", "4", "--worker-class", "gthread", "--threads", "4", "--keep-alive", "75"]);
                command.args(["--bind", listen, "flask_app:app", "--chdir"]).arg(self.root.join("host/benches"));
                command.env("AUTH_TOKENS", &self.token).env("PYTHONDONTWRITEBYTECODE", "1");
                "Listening at: http://"
            }
        };
        command.args(&subject.flags);
        if subject.program == Program::Wasmtime {
            command.arg(wasm);
        }
        // Nothing of the caller's environment may change what is measured.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name.starts_with("TAFFRAIL_"))
        {
            command.env_remove(name);
        }
        command.envs(subject.environment.iter().map(|(name, value)| (name, value)));
        Process::start(command, marker).with_context(|| format!("{} cannot be measured", subject.title))
    }

    fn taffrail(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(self.program(Program::Taffrail)?).args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn built(file: &Path, command: &str) -> anyhow::Result<()> {
    ensure!(file.is_file(), "{} is missing: run `{command}`", file.display());
    Ok(())
}

/// Whether a help text has the word, and not only a longer one.
fn has_word(text: &str, word: &str) -> bool {
    text.split(|byte: char| !(byte.is_ascii_alphanumeric() || byte == '-')).any(|found| found == word)
}
