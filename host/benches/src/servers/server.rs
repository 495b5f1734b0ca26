//! The servers under test: programs with their settings.

/// Requests that an instance serves where instances are reused: the default of `wasmtime serve` for WASI 0.3.
const REUSE: &str = "128";

/// A program that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// hyper in this very binary.
    Native,
    /// hyper and Wasmtime in this very binary.
    Bare,
    Taffrail,
    /// A build of Taffrail without telemetry and deadline.
    AllOff,
    Wasmtime,
    Flask,
}

/// The version of WASI that the served component is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wasi {
    V02,
    V03,
}

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    Hello,
    /// Sends request bodies back.
    Echo,
}

/// How a component is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Wasm,
    Precompiled,
}

/// A program with its settings: one row of the tables.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name on the command line and in the JSON.
    pub id: &'static str,
    /// Its name in the tables.
    pub title: &'static str,
    pub program: Program,
    pub wasi: Wasi,
    pub form: Form,
    pub flags: Vec<&'static str>,
    pub environment: Vec<(&'static str, String)>,
}

impl Server {
    /// One that serves a .wasm file for WASI 0.2, with the defaults of its program.
    pub fn new(id: &'static str, title: &'static str, program: Program) -> Self {
        Self { id, title, program, wasi: Wasi::V02, form: Form::Wasm, flags: Vec::new(), environment: Vec::new() }
    }

    fn flags(mut self, flags: &[&'static str]) -> Self {
        self.flags = flags.to_vec();
        self
    }

    fn on(mut self, wasi: Wasi) -> Self {
        self.wasi = wasi;
        self
    }

    fn precompiled(mut self) -> Self {
        self.form = Form::Precompiled;
        self
    }
}

/// All of them, native first: the ratios are to the first one.
pub fn all() -> Vec<Server> {
    use Program::{Flask, Native, Taffrail, Wasmtime};
    vec![
        Server::new("native", "native hyper", Native),
        Server::new("taffrail", "taffrail 0.2, fresh", Taffrail),
        Server::new("taffrail-reuse", "taffrail 0.2, reuse", Taffrail).flags(&["--instance-reuse", REUSE]),
        Server::new("taffrail-03", "taffrail 0.3, fresh", Taffrail).on(Wasi::V03),
        Server::new("taffrail-03-reuse", "taffrail 0.3, reuse", Taffrail)
            .on(Wasi::V03)
            .flags(&["--instance-reuse", REUSE]),
        Server::new("wasmtime", "wasmtime serve 0.2, default", Wasmtime),
        Server::new("wasmtime-reuse", "wasmtime serve 0.2, reuse", Wasmtime)
            .flags(&["--max-instance-reuse-count", REUSE]),
        Server::new("wasmtime-03", "wasmtime serve 0.3, default", Wasmtime).on(Wasi::V03), // reuses: 128 × 16
        Server::new("flask", "Flask + gunicorn", Flask),
    ]
}

/// Those that the guard compares.
pub fn guarded() -> Vec<Server> {
    use Program::{Bare, Native, Taffrail};
    vec![
        Server::new("native", "native hyper", Native),
        Server::new("bare", "bare wasmtime, fresh", Bare).precompiled(),
        Server::new("taffrail", "taffrail 0.2, fresh", Taffrail),
    ]
}

/// Those whose cold start is measured.
pub fn cold_starts() -> Vec<Server> {
    use Program::{Flask, Native, Taffrail, Wasmtime};
    vec![
        Server::new("native", "native hyper", Native),
        Server::new("taffrail", "taffrail, .wasm", Taffrail),
        Server::new("taffrail-precompiled", "taffrail, precompiled", Taffrail).precompiled(),
        Server::new("wasmtime", "wasmtime serve, .wasm", Wasmtime),
        Server::new("wasmtime-precompiled", "wasmtime serve, precompiled", Wasmtime).precompiled(),
        Server::new("flask", "Flask + gunicorn", Flask),
    ]
}

/// Taffrail as it ships beside a build without telemetry and deadline, which `--all-off` names: no flag switches them off.
pub fn telemetry() -> Vec<Server> {
    vec![
        Server::new("all-off", "taffrail, all off", Program::AllOff),
        Server::new("as-shipped", "taffrail, metrics and deadline on", Program::Taffrail),
    ]
}

/// How the variables of the trace exporter begin.
pub const OTLP: &str = "OTEL_EXPORTER_OTLP_";

/// Taffrail without a trace collector, with one that is not there, and with one that never answers.
pub fn collectors(closed: &str, silent: &str) -> Vec<Server> {
    let to = |address: &str| vec![("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))];
    vec![
        Server::new("no-collector", "no collector", Program::Taffrail),
        Server {
            environment: to(closed),
            ..Server::new("closed-collector", "collector: closed port", Program::Taffrail)
        },
        Server {
            environment: to(silent),
            ..Server::new("silent-collector", "collector: accepts, never answers", Program::Taffrail)
        },
    ]
}
