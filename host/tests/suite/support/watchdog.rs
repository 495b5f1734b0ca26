//! A test that hangs ends the run within two minutes, by its name: a run that never ends says nothing.
//!
//! Every test reaches [`watch`] through the support that it uses, and `rules::every_test_is_watched` holds that. A test's thread has
//! its name, and the end of the thread is the end of the test.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

/// How long a test may take, in seconds: with what the watchdog itself takes, less than two minutes.
const BOUND: u64 = 110;

/// How long cargo may build the guests, in seconds. That is not the time of the test that asked first.
const BUILD_BOUND: u64 = 30 * 60;

/// A test that runs, in seconds: how long it has run, and how long it may.
struct Time {
    taken: u64,
    bound: u64,
}

static RUNNING: Mutex<BTreeMap<String, Time>> = Mutex::new(BTreeMap::new());
static BUILDS: AtomicUsize = AtomicUsize::new(0);

fn running() -> MutexGuard<'static, BTreeMap<String, Time>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The test of a thread, from its first use of the support to the thread's end.
struct Test(String);

impl Test {
    /// `None` for a thread that is no test's: those have the path of their function as name.
    fn of_this_thread() -> Option<Self> {
        let name = std::thread::current().name().filter(|name| name.contains("::"))?.to_owned();
        running().insert(name.clone(), Time { taken: 0, bound: BOUND });
        static WATCHDOG: Once = Once::new();
        WATCHDOG.call_once(|| {
            std::thread::Builder::new().name("watchdog".to_owned()).spawn(run).expect("a thread");
        });
        Some(Self(name))
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        running().remove(&self.0);
    }
}

thread_local!(static TEST: Option<Test> = Test::of_this_thread());

/// Bounds the test of this thread. Does nothing in other threads, and nothing the second time.
pub fn watch() {
    TEST.with(|_| ());
}

/// Gives the test of this thread so much more time: it was asked to take that long.
pub fn takes_longer(by: Duration) {
    watch();
    TEST.with(|test| {
        if let Some(Test(name)) = test {
            running().entry(name.clone()).and_modify(|time| time.bound += by.as_secs());
        }
    });
}

/// Does what is not the time of any test.
pub fn building<T>(build: impl FnOnce() -> T) -> T {
    BUILDS.fetch_add(1, Relaxed);
    let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(build));
    BUILDS.fetch_sub(1, Relaxed);
    built.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn run() {
    let mut building = 0;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        if BUILDS.load(Relaxed) > 0 {
            building += 1;
            if building > BUILD_BOUND {
                end(&format!("cargo has been building the guests for {BUILD_BOUND} s"));
            }
            continue;
        }
        let mut late = Vec::new();
        for (test, time) in running().iter_mut() {
            time.taken += 1;
            if time.taken > time.bound {
                late.push(format!("{test} has run for {} s", time.bound));
            }
        }
        if !late.is_empty() {
            end(&late.join("; "));
        }
    }
}

/// Ends the run and the processes that it has started.
fn end(why: &str) -> ! {
    // Not by eprintln!: the thread has inherited the capture of the test that started it.
    let _ = writeln!(std::io::stderr(), "\nHANGS: {why}. This ends the run: no test may hang.");
    for child in children() {
        let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
    }
    std::process::abort();
}

fn children() -> Vec<rustix::process::Pid> {
    let parent = std::process::id().to_string();
    let is_child =
        |stat: &str| stat.rsplit(')').next().is_some_and(|fields| fields.split_whitespace().nth(1) == Some(&parent));
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(rustix::process::Pid::from_raw))
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).is_ok_and(|stat| is_child(&stat))
        })
        .collect()
}
