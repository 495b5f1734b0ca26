//! What one guest may grow to, and all of them together.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use wasmtime::ResourceLimiter;

use super::os_error::refused_by_system;
use crate::config::GuestLimits;
use crate::error::Error;
use crate::telemetry::metrics::Metrics;

/// A holder of memory that can be given to others.
pub(crate) trait Reclaim: std::fmt::Debug + Send + Sync {
    /// Gives the memory of one instance back. False where there is none to give.
    fn reclaim(&self) -> bool;
}

/// Memory for all guests together: their linear memory, their tables, and what the host holds for their handles. A guest that
/// starts or grows takes from it, a guest that ends gives back.
#[derive(Debug)]
pub(crate) struct Budget {
    free: AtomicUsize,
    reclaim: Weak<dyn Reclaim>,
}

impl Budget {
    /// `bytes` for all. Where they are not enough, `reclaim` gives back what waits.
    pub(crate) fn new(bytes: usize, reclaim: Weak<dyn Reclaim>) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(bytes), reclaim })
    }

    fn take(&self, bytes: usize) -> bool {
        while self.free.fetch_update(Relaxed, Relaxed, |free| free.checked_sub(bytes)).is_err() {
            if !self.reclaim.upgrade().is_some_and(|held| held.reclaim()) {
                return false;
            }
        }
        true
    }

    fn give(&self, bytes: usize) {
        self.free.fetch_add(bytes, Relaxed);
    }
}

/// The limits of one guest. A panic and a failed allocation end in the same trap, so the limiter remembers what it
/// refused: that tells them apart.
#[derive(Debug)]
pub(crate) struct Limiter {
    limits: GuestLimits,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    memory: usize,
    /// What its tables take, and what the host holds for its handles, in bytes.
    tables: usize,
    held: usize,
    /// What it was granted last, in bytes: given back when the growth fails after all.
    granted: usize,
    over: bool,
    refused: Option<Refused>,
}

/// What an element of a table takes: a pointer.
const ELEMENT: usize = size_of::<usize>();

#[derive(Debug, Clone, Copy)]
enum Refused {
    GuestMemory,
    AllMemory,
    Table,
}

impl Limiter {
    /// For a guest that has nothing yet.
    pub(crate) fn new(limits: GuestLimits, budget: Arc<Budget>, metrics: Arc<Metrics>) -> Self {
        Self { limits, budget, metrics, memory: 0, tables: 0, held: 0, granted: 0, over: false, refused: None }
    }

    /// Linear memory that the guest has, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// What the host holds for its handles is so much now, in bytes. False where that is more than it may have: the guest is to end.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.held);
        if more > 0 && !self.take(more) {
            self.over = true;
            return false;
        }
        self.budget.give(self.held.saturating_sub(bytes));
        self.held = bytes;
        true
    }

    /// Whether the host was refused to hold what it holds: the guest is to end.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Takes so many bytes, or remembers why not.
    fn take(&mut self, bytes: usize) -> bool {
        let all = self.memory + self.tables + self.held;
        let refused = if all.saturating_add(bytes) > self.limits.memory {
            Refused::GuestMemory
        } else if !self.budget.take(bytes) {
            Refused::AllMemory
        } else {
            return true;
        };
        self.refused = Some(refused);
        false
    }

    /// Forgets what was refused: another request begins in the same instance.
    pub(crate) fn forgive(&mut self) {
        self.refused = None;
    }

    /// The failure of a guest, if it comes from what was refused.
    pub(crate) fn failure(&self, detail: impl FnOnce() -> String) -> Option<Error> {
        Some(match self.refused? {
            Refused::GuestMemory => Error::GuestOutOfMemory(detail()),
            Refused::AllMemory => Error::HostOutOfMemory(detail()),
            Refused::Table => Error::GuestTableTooLarge(detail()),
        })
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // the component's own limit: no growth, and so nothing to grant
        }
        let more = desired.saturating_sub(current);
        let granted = self.take(more);
        if granted {
            self.memory += more;
            self.granted = more;
        }
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Any other failure comes before a grant.
        if refused_by_system(&error).is_some() {
            self.refused = Some(Refused::AllMemory);
            let granted = std::mem::take(&mut self.granted);
            self.memory -= granted;
            self.budget.give(granted);
        }
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.limits.table_elements {
            self.refused = Some(Refused::Table);
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // the component's own limit: what is granted below always comes about
        }
        let more = desired.saturating_sub(current).saturating_mul(ELEMENT);
        let granted = self.take(more);
        if granted {
            self.tables += more;
        }
        Ok(granted)
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.budget.give(self.memory + self.tables + self.held);
        self.metrics.guest_memory(self.memory);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::telemetry::metrics::ComponentInfo;

    const PAGE: usize = 64 * 1024;
    const LIMITS: GuestLimits =
        GuestLimits { memory: 4 * PAGE, table_elements: 10, handles: 1, call_size: 1, log_rate: 1 };

    /// Instances that wait, each with so much memory.
    #[derive(Debug, Default)]
    struct Waiting(Mutex<Vec<Limiter>>);

    impl Reclaim for Waiting {
        fn reclaim(&self) -> bool {
            self.0.lock().unwrap().pop().is_some()
        }
    }

    fn metrics() -> Arc<Metrics> {
        Metrics::new(ComponentInfo { digest: String::new(), name: String::new(), world: String::new() })
    }

    fn limiter(budget: &Arc<Budget>) -> Limiter {
        Limiter::new(LIMITS, budget.clone(), metrics())
    }

    fn grow(limiter: &mut Limiter, to: usize) -> bool {
        let from = limiter.memory();
        limiter.memory_growing(from, from + to, None).unwrap()
    }

    fn reason(limiter: &Limiter) -> Option<&'static str> {
        limiter.failure(String::new).map(|error| error.reason())
    }

    #[test]
    fn a_guest_grows_to_its_limit_over_all_its_memories_and_gives_back_at_its_end() {
        let waiting = Arc::<Waiting>::default();
        let reclaim: Arc<dyn Reclaim> = waiting.clone();
        let budget = Budget::new(5 * PAGE, Arc::downgrade(&reclaim));
        let mut one = limiter(&budget);
        assert!(grow(&mut one, 3 * PAGE) && grow(&mut one, PAGE) && !grow(&mut one, PAGE));
        assert_eq!((one.memory(), reason(&one)), (4 * PAGE, Some("guest_out_of_memory")));
        one.forgive();
        assert_eq!(reason(&one), None);
        let mut other = limiter(&budget);
        assert!(grow(&mut other, PAGE) && !grow(&mut other, PAGE));
        assert_eq!(reason(&other), Some("host_out_of_memory"));
        drop(one);
        assert!(grow(&mut other, PAGE));
    }

    #[test]
    fn what_does_not_grow_after_all_is_not_counted() {
        let waiting: Arc<dyn Reclaim> = Arc::<Waiting>::default();
        let budget = Budget::new(3 * PAGE, Arc::downgrade(&waiting));
        let mut one = limiter(&budget);
        assert!(one.memory_growing(0, PAGE, Some(2 * PAGE)).unwrap());
        assert!(!one.memory_growing(PAGE, 3 * PAGE, Some(2 * PAGE)).unwrap(), "its own limit");
        assert_eq!((one.memory(), reason(&one)), (PAGE, None));
        assert!(one.memory_growing(PAGE, 2 * PAGE, None).unwrap());
        let system = || wasmtime::Error::from(std::io::Error::from(rustix::io::Errno::NOMEM));
        one.memory_grow_failed(system()).unwrap();
        one.memory_grow_failed(system()).unwrap();
        assert_eq!((one.memory(), reason(&one)), (PAGE, Some("host_out_of_memory")));
        assert!(grow(&mut limiter(&budget), 2 * PAGE), "and others may have it");
    }

    #[test]
    fn memory_that_waits_is_reclaimed_one_by_one_and_no_more_than_is_needed() {
        let waiting = Arc::<Waiting>::default();
        let reclaim: Arc<dyn Reclaim> = waiting.clone();
        let budget = Budget::new(4 * PAGE, Arc::downgrade(&reclaim));
        for _ in 0..4 {
            let mut one = limiter(&budget);
            assert!(grow(&mut one, PAGE));
            waiting.0.lock().unwrap().push(one);
        }
        let mut working = limiter(&budget);
        assert!(grow(&mut working, 2 * PAGE));
        assert_eq!(waiting.0.lock().unwrap().len(), 2);
        assert!(grow(&mut working, 2 * PAGE) && !grow(&mut limiter(&budget), PAGE));
        drop((reclaim, waiting));
        assert!(!grow(&mut limiter(&budget), PAGE), "nobody is left to ask");
    }

    #[test]
    fn a_table_is_bounded_by_its_own_number() {
        let waiting: Arc<dyn Reclaim> = Arc::<Waiting>::default();
        let mut one = limiter(&Budget::new(PAGE, Arc::downgrade(&waiting)));
        assert!(one.table_growing(0, 9, None).unwrap() && !one.table_growing(9, 10, Some(9)).unwrap());
        assert_eq!(reason(&one), None, "its own limit");
        assert!(one.table_growing(9, 10, None).unwrap() && !one.table_growing(10, 11, None).unwrap());
        assert_eq!(reason(&one), Some("guest_table_too_large"));
    }

    /// Whatever it is: memory, tables, or what the host holds for it.
    #[test]
    fn everything_that_a_guest_has_is_of_one_budget_and_given_back() {
        let waiting: Arc<dyn Reclaim> = Arc::<Waiting>::default();
        let budget = Budget::new(5 * PAGE, Arc::downgrade(&waiting));
        let limits = GuestLimits { table_elements: PAGE, ..LIMITS };
        let new = || Limiter::new(limits, budget.clone(), metrics());
        let mut one = new();
        assert!(grow(&mut one, PAGE) && one.hold(2 * PAGE) && one.table_growing(0, PAGE / ELEMENT, None).unwrap());
        let mut other = new();
        assert!(other.hold(PAGE) && !other.hold(PAGE + 1));
        assert_eq!(reason(&other), Some("host_out_of_memory"));
        assert!(other.is_over() && !one.is_over());
        drop(other);
        let mut other = new();
        assert!(one.hold(PAGE) && other.hold(2 * PAGE), "there is a page more now");
        drop(one);
        assert!(other.hold(4 * PAGE) && !other.table_growing(0, 1, None).unwrap());
        assert_eq!(reason(&other), Some("guest_out_of_memory"));
    }
}
