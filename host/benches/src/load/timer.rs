//! A timer as exact as the kernel's. tokio's own ticks in milliseconds, which is longer than most responses take.

use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::Context as _;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A `timerfd`.
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
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
    ///
    /// # Errors
    /// When the kernel refuses the timer, or the runtime is shutting down.
    pub async fn sleep_until(&mut self, at: Instant) -> anyhow::Result<()> {
        let wait = at.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let once = Itimerspec { it_interval: zero, it_value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once).context("setting a timer")?;
        // Setting it again takes back the expiry that is never read, so only tokio has to be told that we saw it.
        self.0.readable().await.context("waiting for a timer")?.clear_ready();
        Ok(())
    }
}
