//! The real binary as a process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::PATIENCE;
use super::watchdog::watch;

/// The binary under test: the one of this build, or another that `make` names (an optimised one, for the soak).
pub fn binary() -> PathBuf {
    watch();
    std::env::var_os("TAFFRAIL_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_taffrail").into(), PathBuf::from)
}

/// The real binary. Its log is shown when the test fails, and it ends with the test.
pub struct Process {
    child: Child,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        watch();
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary runs");
        let log = Arc::<(Mutex<Vec<String>>, Condvar)>::default();
        let (stderr, lines) = (child.stderr.take().expect("a pipe"), log.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
                lines.1.notify_all();
            }
        });
        Self { child, log, reader: Some(reader) }
    }

    /// Waits until the log has a line with this text, and returns the line.
    pub fn wait_for_line(&self, text: &str) -> String {
        let has = |lines: &Vec<String>| lines.iter().find(|line| line.contains(text)).cloned();
        let lines = self.log.0.lock().unwrap();
        let (lines, _) = self.log.1.wait_timeout_while(lines, PATIENCE, |lines| has(lines).is_none()).unwrap();
        has(&lines).unwrap_or_else(|| panic!("no log line with {text:?}"))
    }

    pub fn log(&self) -> String {
        self.log.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n")
    }

    /// The log of a process that has ended, to its last line.
    pub fn whole_log(&mut self) -> String {
        self.reader.take().expect("asked once").join().expect("no panic");
        self.log()
    }

    fn address(&self, key: &str) -> SocketAddr {
        let line: serde_json::Value = serde_json::from_str(&self.wait_for_line("\"ready\"")).expect("a JSON line");
        line[key].as_str().and_then(|address| address.parse().ok()).expect("an address")
    }

    pub fn addr(&self) -> SocketAddr {
        self.address("listen")
    }

    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// The processes that it has started and that run.
    pub fn children(&self) -> Vec<rustix::process::Pid> {
        let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat.rsplit(')').next()?.split_whitespace();
            let (state, parent) = (fields.next()?, fields.next()?.parse::<u32>().ok()?);
            (parent == self.child.id() && state != "Z").then(|| rustix::process::Pid::from_raw(pid))?
        });
        processes.collect()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let since = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// CPU time that the process has used, from `/proc` (ticks of 10 ms).
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a running process");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        Duration::from_millis(fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks") * 10).sum())
    }

    /// Resident memory now, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    pub fn may_have_huge_pages(&self) -> bool {
        self.status("THP_enabled:") != 0
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("a running process").count()
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// Resident memory at its peak, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of the process\n{}\n---", self.log());
        }
    }
}
