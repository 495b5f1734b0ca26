//! When the requests of a measurement are due, and which of them count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How requests arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// Each client asks again as soon as it is answered.
    ClosedLoop,
    /// At so many a second, evenly, whatever becomes of the earlier ones (open loop).
    ConstantRate(f64),
}

/// The schedule of one measurement, shared by its clients.
pub struct Schedule {
    arrivals: Arrivals,
    /// When the warm-up begins.
    begin: Instant,
    /// When the measurement begins.
    pub start: Instant,
    /// When the measurement ends.
    pub end: Instant,
    /// Requests at a constant rate that clients have taken on.
    issued: AtomicU64,
}

impl Schedule {
    /// A warm-up from now on, then the measurement.
    pub fn from_now(arrivals: Arrivals, warm_up: Duration, measured: Duration) -> Self {
        let begin = Instant::now();
        let start = begin + warm_up;
        Self { arrivals, begin, start, end: start + measured, issued: AtomicU64::new(0) }
    }

    /// When a client that is free at this instant sends its next request.
    pub fn next_due(&self, free: Instant) -> Instant {
        match self.arrivals {
            Arrivals::ClosedLoop => free,
            Arrivals::ConstantRate(per_second) => self.due(self.issued.fetch_add(1, Ordering::Relaxed), per_second),
        }
    }

    fn due(&self, number: u64, per_second: f64) -> Instant {
        self.begin + Duration::from_secs_f64(number as f64 / per_second)
    }

    /// Whether a request counts that was due, and answered, at these instants.
    pub fn counts(&self, due: Instant, answered: Instant) -> bool {
        let decides = if self.arrivals == Arrivals::ClosedLoop { answered } else { due };
        (self.start..self.end).contains(&decides)
    }

    /// How many requests count, where that is known beforehand: at a constant rate.
    pub fn expected(&self) -> Option<u64> {
        let Arrivals::ConstantRate(per_second) = self.arrivals else { return None };
        let due_before = |at: Instant| {
            // One less than the product says, then on: rounding must not make one up.
            let estimate = ((at - self.begin).as_secs_f64() * per_second) as u64;
            (estimate.saturating_sub(1)..).find(|number| self.due(*number, per_second) >= at).unwrap_or(estimate)
        };
        Some(due_before(self.end) - due_before(self.start))
    }
}
