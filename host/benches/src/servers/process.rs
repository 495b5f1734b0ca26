//! A server's process: started, asked for its address, watched from outside, ended.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a start may take (the longest is Flask's).
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long after SIGTERM a process is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Lines of its log that are kept, for the message when it fails.
const LOG_LINES: usize = 10;

/// A running server. Stops when it is dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts it and waits until its log says where it listens: right after `marker`.
    ///
    /// # Errors
    /// With the end of its log when it does not listen in time.
    pub fn start(mut command: Command, marker: &'static str) -> anyhow::Result<Self> {
        let program = command.get_program().display().to_string();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("{program} cannot be started"))?;
        let stderr = child.stderr.take().context("the log is not piped")?;
        let log = Arc::<Mutex<VecDeque<String>>>::default();
        let (found, address) = channel();
        thread::spawn({
            let log = log.clone();
            move || follow(stderr, marker, &log, &found)
        });
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self { child, log, address: unknown };
        // The sender is dropped, and the wait over, when the process has closed its log.
        match address.recv_timeout(START_TIMEOUT) {
            Ok(address) => process.address = address,
            Err(_) => bail!("{program} does not listen; the end of its log:\n{}", process.log()),
        }
        Ok(process)
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).make_contiguous().join("\n")
    }

    /// CPU time of the process and its descendants until now: user and system.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut ticks = 0;
        for stat in self.tree()? {
            // utime, stime, and the same of children that were waited for: fields 14 to 17 of proc_pid_stat(5).
            ticks += (11..15).map(|field| stat.field(field)).sum::<anyhow::Result<u64>>()?;
        }
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// Resident memory in bytes, now, summed over the process and its descendants.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn memory(&self) -> anyhow::Result<u64> {
        self.memory_line("VmRSS:")
    }

    /// The highest resident memory in bytes since the last call.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn take_memory_peak(&self) -> anyhow::Result<u64> {
        let peak = self.memory_line("VmHWM:")?;
        for stat in self.tree()? {
            fs::write(format!("/proc/{}/clear_refs", stat.pid), "5")?; // 5: reset VmHWM, see proc(5)
        }
        Ok(peak)
    }

    fn memory_line(&self, name: &str) -> anyhow::Result<u64> {
        let mut kib = 0;
        for stat in self.tree()? {
            let status = fs::read_to_string(format!("/proc/{}/status", stat.pid))?;
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line in its status")?;
            kib += line.trim().trim_end_matches(" kB").parse::<u64>()?;
        }
        Ok(kib * 1024)
    }

    /// The process and its descendants.
    fn tree(&self) -> anyhow::Result<Vec<Stat>> {
        let root =
            Stat::read(self.child.id()).with_context(|| format!("the server has ended; its log:\n{}", self.log()))?;
        let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut others: Vec<Stat> = pids.filter_map(|pid| Stat::read(pid).ok()).collect();
        let mut tree = vec![root];
        let mut known = 0;
        while known < tree.len() {
            let parent = tree[known].pid;
            let (children, rest) = others.into_iter().partition(|stat| stat.field(1).ok() == Some(u64::from(parent)));
            tree.extend::<Vec<Stat>>(children);
            (others, known) = (rest, known + 1);
        }
        Ok(tree)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < STOP_TIMEOUT {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log to its end, so that the server never waits for its reader.
fn follow(stderr: ChildStderr, marker: &str, log: &Mutex<VecDeque<String>>, found: &Sender<SocketAddr>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        if let Some((_, rest)) = line.split_once(marker) {
            let end =
                rest.find(|byte: char| !byte.is_ascii_digit() && byte != '.' && byte != ':').unwrap_or(rest.len());
            if let Ok(address) = rest[..end].parse() {
                let _ = found.send(address); // only the first one is waited for
            }
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_back(line);
        if log.len() > LOG_LINES {
            log.pop_front();
        }
    }
}

/// `/proc/PID/stat`.
struct Stat {
    pid: u32,
    fields: Vec<String>,
}

impl Stat {
    fn read(pid: u32) -> anyhow::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may hold anything.
        let (_, fields) = text.rsplit_once(") ").context("a stat without a name")?;
        Ok(Self { pid, fields: fields.split_whitespace().map(str::to_owned).collect() })
    }

    /// A field by its number after the name: 0 is the state, 1 the parent.
    fn field(&self, number: usize) -> anyhow::Result<u64> {
        self.fields.get(number).context("a stat too short")?.parse().context("a stat's field is no number")
    }
}
