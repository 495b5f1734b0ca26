//! The way to stderr: a bounded queue of lines, and one thread that writes them. Whoever logs never waits for who reads: lines
//! that find no room, or that cannot be written, are dropped and counted.
//!
//! `tracing-appender` bounds its queue by lines, whatever their length, and writes them one by one; this one is bounded in bytes
//! and writes what has gathered at once.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use super::metrics::host;

/// What may wait, in bytes: some 3,000 lines of the access log. As much again may be with the writer.
const QUEUE_MAX: usize = 1024 * 1024;

/// How long lines gather before they are written: a write, and the waking of a thread, for many of them.
const GATHER: Duration = Duration::from_millis(5);

/// How long to wait before trying again where stderr takes nothing and does not block, being shared with others.
const RETRY: Duration = Duration::from_millis(10);

/// How long the end of the process waits for who reads the log.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The queue. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Stderr(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Signalled when there are lines, or when a flush begins; the writer waits for it.
    filled: Condvar,
    /// Signalled when everything is written; a flush waits for it.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// The writer has nothing to do.
    idle: bool,
    /// Somebody waits for all to be written.
    flushing: bool,
}

/// Flushes when it is dropped, in a panic as well.
#[derive(Debug)]
pub struct FlushOnDrop(Stderr);

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        self.0.flush();
    }
}

impl Stderr {
    /// Starts the thread, which writes to stderr until the process ends.
    ///
    /// # Errors
    /// When the system gives no thread, or no descriptor.
    pub fn start() -> io::Result<Self> {
        Self::writing_to(io::stderr().as_fd().try_clone_to_owned()?)
    }

    fn writing_to(target: OwnedFd) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let writer = queue.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_all_that_comes(&target))?;
        Ok(queue)
    }

    /// Puts a whole line, or several, into the queue. Never waits for the writer.
    pub fn push(&self, lines: &[u8]) {
        let mut state = self.lock();
        if state.lines.len() + lines.len() > QUEUE_MAX {
            drop(state);
            return host::log_lines_dropped(1);
        }
        state.lines.extend_from_slice(lines);
        if std::mem::take(&mut state.idle) {
            drop(state);
            self.0.filled.notify_one();
        }
    }

    /// A guard for the end of the process: when it goes, everything is written, or a second is over.
    pub fn flush_on_drop(&self) -> FlushOnDrop {
        FlushOnDrop(self.clone())
    }

    /// Waits until everything is written, for [`FLUSH_MAX`] at the most.
    fn flush(&self) {
        let mut state = self.lock();
        state.flushing = true;
        self.0.filled.notify_one();
        let unwritten = |state: &mut State| !state.idle || !state.lines.is_empty();
        let flushed = self.0.written.wait_timeout_while(state, FLUSH_MAX, unwritten);
        flushed.unwrap_or_else(PoisonError::into_inner).0.flushing = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all_that_comes(&self, target: &OwnedFd) {
        let (mut batch, mut told) = (Vec::new(), 0);
        loop {
            self.take(&mut batch);
            let unwritten = write(target, &batch);
            host::log_lines_dropped(unwritten.iter().filter(|byte| **byte == b'\n').count() as u64);
            if unwritten.is_empty() {
                let dropped = host::log_lines_lost();
                if dropped > told {
                    tracing::warn!(dropped = dropped - told, "lines of the log were dropped: nobody took them in time");
                    told = dropped;
                }
            }
            batch.clear();
        }
    }

    /// Waits for lines, lets more of them gather, and takes them all.
    fn take(&self, batch: &mut Vec<u8>) {
        let mut state = self.lock();
        while state.lines.is_empty() {
            state.idle = true;
            self.0.written.notify_all();
            state = self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        let gathered = self.0.filled.wait_timeout_while(state, GATHER, |state| !state.flushing);
        let mut state = gathered.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut state.lines, batch);
    }
}

/// Writes all of it, however long that takes. Returns what could not be written.
fn write<'a>(target: &OwnedFd, batch: &'a [u8]) -> &'a [u8] {
    let mut rest = batch;
    while !rest.is_empty() {
        match rustix::io::write(target, rest) {
            Ok(0) => break,
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => thread::sleep(RETRY),
            Err(_) => break,
        }
    }
    rest
}

/// A line of `tracing` comes in one piece.
impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader};

    use super::*;

    /// More than the pipe holds, and the queue, and the writer.
    const TOO_MUCH: usize = 3 * QUEUE_MAX + 1024 * 1024;

    #[test]
    fn lines_come_in_order_and_a_flush_waits_for_them() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = Stderr::writing_to(writer.into()).unwrap();
        for number in 0..100 {
            queue.push(format!("line {number}\n").as_bytes());
        }
        queue.flush();
        let lines = BufReader::new(reader).lines().take(100).map(Result::unwrap);
        assert!(lines.enumerate().all(|(number, line)| line == format!("line {number}")));
    }

    /// Counts are of the process, and tests run beside one another: so they are compared, not taken as they are.
    #[test]
    fn who_logs_never_waits_for_who_reads() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = Stderr::writing_to(writer.into()).unwrap();
        let (before, line) = (host::log_lines_lost(), [b'x'; 1023]);
        let pushed = TOO_MUCH / 1024;
        for _ in 0..pushed {
            queue.push(&[&line[..], b"\n"].concat());
        }
        let dropped = host::log_lines_lost() - before;
        assert!(dropped as usize >= 1024, "{dropped}");
        queue.flush(); // in vain, but not for ever
        let kept = pushed - dropped as usize;
        let lines = BufReader::new(reader).lines().take(kept).map(Result::unwrap);
        assert!(lines.map(|line| line.len()).all(|length| length == 1023));
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let queue = Stderr::writing_to(File::options().write(true).open("/dev/full").unwrap().into()).unwrap();
        let before = host::log_lines_lost();
        queue.push(b"one\ntwo\n");
        queue.flush();
        assert!(host::log_lines_lost() >= before + 2);
    }
}
