//! Whether the threads that serve are alive. One that stands still within one turn of a task holds what waits behind it for ever, and
//! nobody but a restart ends that: so `/livez` says it, from a thread of its own.
//!
//! The threads are asked nothing: tokio counts what each does, and this looks at the counts. A guest cannot bring it about, since it
//! yields every few milliseconds however it computes; load cannot either, since a thread that is busy goes from turn to turn.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;
use tokio::time::{MissedTickBehavior, interval};

const PERIOD: Duration = Duration::from_millis(500);

/// In how many looks one after the other a thread is found in the same turn: ten seconds. Looks are counted, not time: where the
/// whole process was stopped or had no CPU, nobody looked either.
const LOOKS_MAX: u32 = 20;

/// Whether each thread moves.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    deaf: AtomicBool,
}

/// What was seen of a thread.
#[derive(Debug, Default, Clone)]
struct Thread {
    /// How often it has begun and ended to wait, and for how long it has been busy.
    seen: (u64, Duration),
    /// In how many looks it was the same.
    looks: u32,
}

impl Heartbeat {
    /// Whether a thread stands still.
    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf.load(Relaxed)
    }

    /// Looks after the threads of a runtime, for ever.
    pub(crate) async fn watch(&self, runtime: RuntimeMetrics) {
        let mut threads = vec![Thread::default(); runtime.num_workers()];
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let mut still = None;
            for (number, thread) in threads.iter_mut().enumerate() {
                let (parks, busy) =
                    (runtime.worker_park_unpark_count(number), runtime.worker_total_busy_duration(number));
                if thread.is_still(parks, busy) {
                    still = Some(number);
                }
            }
            match (still, self.deaf.swap(still.is_some(), Relaxed)) {
                (Some(number), false) => {
                    let seconds = (PERIOD * LOOKS_MAX).as_secs();
                    tracing::error!(thread = number, seconds, "a thread that serves stands still: not alive");
                }
                (None, true) => tracing::warn!("every thread that serves moves again"),
                _ => {}
            }
        }
    }
}

impl Thread {
    /// `parks` is odd while the thread waits for work.
    fn is_still(&mut self, parks: u64, busy: Duration) -> bool {
        let seen = (parks, busy);
        let waits = parks % 2 == 1;
        self.looks = if waits || self.seen != seen { 0 } else { (self.looks + 1).min(LOOKS_MAX) };
        self.seen = seen;
        self.looks == LOOKS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a thread is still after so many looks that all see the same.
    fn after(looks: u32, thread: &mut Thread, parks: u64, busy: u64) -> bool {
        (0..looks).map(|_| thread.is_still(parks, Duration::from_millis(busy))).last().is_some_and(|still| still)
    }

    #[test]
    fn a_thread_that_waits_for_work_is_alive_however_long() {
        assert!(!after(10 * LOOKS_MAX, &mut Thread::default(), 7, 5));
    }

    #[test]
    fn a_thread_that_goes_from_turn_to_turn_is_alive_and_one_that_stays_in_one_is_not() {
        let mut thread = Thread::default();
        for busy in 1..100 {
            assert!(!after(LOOKS_MAX, &mut thread, 8, busy), "the first look of these sees something new");
        }
        assert!(after(1, &mut thread, 8, 99));
        assert!(after(5, &mut thread, 8, 99), "for as long as it stays there");
        assert!(!after(1, &mut thread, 9, 99));
    }
}
