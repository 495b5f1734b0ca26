//! Bounds what may be logged a second, and counts what is left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets so many lines a second pass, and counts the others.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: u32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    passed: u32,
    dropped: u64,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It passes. So many were dropped since the last window that dropped any: say so.
    Yes {
        /// Lines dropped.
        dropped_before: u64,
    },
    /// It is dropped.
    No,
}

impl RateLimit {
    /// `per_second` lines pass.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, window: Mutex::new(Window { since: Instant::now(), passed: 0, dropped: 0 }) }
    }

    /// Whether the next line passes.
    pub(crate) fn pass(&self) -> Pass {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped_before = 0;
        if window.since.elapsed() >= Duration::from_secs(1) {
            dropped_before = window.dropped;
            *window = Window { since: Instant::now(), passed: 0, dropped: 0 };
        }
        if window.passed < self.per_second {
            window.passed += 1;
            return Pass::Yes { dropped_before };
        }
        window.dropped += 1 + dropped_before;
        Pass::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_dropped_and_counted() {
        let limit = RateLimit::new(2);
        let passed = (0..10).filter(|_| limit.pass() != Pass::No).count();
        assert_eq!(passed, 2);
        limit.window.lock().unwrap().since -= Duration::from_secs(1);
        assert_eq!(limit.pass(), Pass::Yes { dropped_before: 8 });
        assert_eq!(limit.pass(), Pass::Yes { dropped_before: 0 });
        assert_eq!(limit.pass(), Pass::No);
    }

    #[test]
    fn a_limit_of_zero_lets_nothing_pass_and_loses_no_count() {
        let limit = RateLimit::new(0);
        assert_eq!(limit.pass(), Pass::No);
        limit.window.lock().unwrap().since -= Duration::from_secs(1);
        assert_eq!(limit.pass(), Pass::No);
        assert_eq!(limit.window.lock().unwrap().dropped, 2);
    }
}
