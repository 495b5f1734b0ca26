//! When requests are due, and which of them count.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::load::Schedule;

/// The clock of one measurement, shared by its clients.
pub struct Plan {
    pub schedule: Schedule,
    pub begin: Instant,
    pub start: Instant,
    pub end: Instant,
    /// Requests of the open loop that a client has taken.
    pub taken: AtomicU64,
}

impl Plan {
    /// Takes the next request of the open loop: the instant at which it is due.
    pub fn next(&self, per_second: f64) -> Instant {
        self.due(self.taken.fetch_add(1, Ordering::Relaxed), per_second)
    }

    fn due(&self, number: u64, per_second: f64) -> Instant {
        self.begin + Duration::from_secs_f64(number as f64 / per_second)
    }

    /// Whether a request counts that was due, and answered, at these instants.
    pub fn counts(&self, due: Instant, answered: Instant) -> bool {
        let decides = if self.schedule == Schedule::Closed { answered } else { due };
        (self.start..self.end).contains(&decides)
    }

    /// How many requests count; 0 in the closed loop, where that depends on the subject.
    pub fn expected(&self) -> u64 {
        let Schedule::Open(per_second) = self.schedule else { return 0 };
        let due_before = |at: Instant| {
            // One less than the product says, then on: rounding must not make one up.
            let estimate = ((at - self.begin).as_secs_f64() * per_second) as u64;
            (estimate.saturating_sub(1)..).find(|number| self.due(*number, per_second) >= at).unwrap_or(estimate)
        };
        due_before(self.end) - due_before(self.start)
    }
}

/// Wakes at an instant. tokio's own timers know milliseconds alone, which is longer than most answers take.
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// A timer of the runtime that calls.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> anyhow::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: an owned descriptor is open, and the same one, for as long as it is owned.
        #[allow(unsafe_code, reason = "tokio asks for a promise that OwnedFd keeps")]
        let registered = unsafe { AsyncFd::register(timer) }?;
        Ok(Self(registered))
    }

    /// Returns at the instant, or at once when it is over.
    pub async fn until(&mut self, at: Instant) {
        let wait = at.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return;
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let once = Itimerspec { it_interval: zero, it_value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once).expect("a timer of our own can be set");
        // Setting it again takes back the expiry that is never read, so only tokio has to be told that we saw it.
        self.0.readable().await.expect("the runtime lives").clear_ready();
    }
}
