//! The machinery: the guests, a host in this process, the real binary as a process, and clients.

mod cgroup;
mod client;
pub mod frames;
mod guests;
mod process;
mod watchdog;

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, Once};
use std::time::Duration;

use clap::Parser;
use taffrail::cli::{self, CommandLine};
use taffrail::config::Config;
use taffrail::{Drained, Host};

pub use cgroup::MemoryGroup;
pub use client::*;
pub use guests::*;
pub use process::*;
pub use watchdog::{takes_longer, watch};

/// Nothing in a test may hang: what takes this long has failed. No test relies on its length.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const TOKEN: &str = "one&^token";

/// Asks again until it is so. Fails with these words when that takes too long.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

/// Says that the test of this thread cannot run here, past the capture of its output. In CI that is a failure.
pub fn not_run(why: &str) {
    let in_ci = std::env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false");
    assert!(!in_ci, "cannot run: {why}");
    let thread = std::thread::current();
    writeln!(std::io::stderr(), "NOT RUN: {}: {why}", thread.name().unwrap_or("a test")).expect("standard error");
}

/// What the hosts in this process have last logged of requests that failed: there is no other way to a trap's cause.
static FAILURES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
const FAILURES_KEPT: usize = 4096;

struct Failures;

impl Write for Failures {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut failures = FAILURES.lock().expect("no test panics with the log");
        if failures.len() == FAILURES_KEPT {
            failures.pop_front();
        }
        failures.push_back(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a host in this process has logged of the request that was answered so. With `--access-log errors` it logs each.
pub fn why(answer: &Answer) -> String {
    let id = answer.header("x-request-id");
    let failures = FAILURES.lock().expect("no test panics with the log");
    failures.iter().find(|line| line.contains(id)).cloned().unwrap_or_else(|| "nothing was logged".to_owned())
}

/// A host in this process.
pub struct TestHost {
    host: Option<Host>,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
}

/// A host to be started.
pub struct Setup {
    arguments: Vec<String>,
}

impl TestHost {
    /// Serves a guest as it was compiled once for all.
    pub fn serving(name: &str) -> Setup {
        Setup::compiled(&component(name))
    }

    /// Drains, on a task of its own.
    pub fn drain(&mut self) -> tokio::task::JoinHandle<Drained> {
        tokio::spawn(self.host.take().expect("drained once").drain())
    }
}

impl Setup {
    /// Serves this component as [`compiled`] has compiled it.
    pub fn compiled(file: &Path) -> Self {
        Self::file(&compiled(file)).flag("--allow-precompiled")
    }

    /// Serves this file as it is: the host compiles it.
    pub fn file(file: &Path) -> Self {
        watch();
        let component = file.display().to_string();
        let arguments = ["serve", &component, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        Self { arguments: arguments.map(str::to_owned).to_vec() }
    }

    pub fn with(mut self, flag: &str, value: &str) -> Self {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.arguments.push(flag.to_owned());
        self
    }

    pub fn config(&self) -> Result<Config, cli::Faults> {
        let arguments = std::iter::once("taffrail").chain(self.arguments.iter().map(String::as_str));
        match CommandLine::try_parse_from(arguments).expect("flags that exist").command {
            cli::Command::Serve(flags) => flags.check(),
            other => panic!("{other:?}"),
        }
    }

    pub async fn start(self) -> TestHost {
        let host = self.try_start().await.expect("the host starts");
        TestHost { addr: host.address(), admin: host.admin_address(), host: Some(host) }
    }

    pub async fn try_start(self) -> anyhow::Result<Host> {
        static LOG: Once = Once::new();
        LOG.call_once(|| {
            let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false);
            log.with_writer(|| Failures).init();
        });
        Host::start(self.config()?).await
    }

    /// Starts the real binary and waits until it is ready.
    pub fn spawn(self) -> Process {
        self.spawn_with(&[])
    }

    /// The same in an environment of its own.
    pub fn spawn_with(self, environment: &[(&str, &str)]) -> Process {
        let mut command = self.command();
        let process = Process::spawn({
            command.envs(environment.iter().copied());
            command
        });
        process.wait_for_line("\"ready\"");
        process
    }

    pub fn command(self) -> Command {
        let mut command = Command::new(binary());
        command.args(self.arguments);
        command
    }
}
