//! What one guest may grow to, and all of them together.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use wasmtime::ResourceLimiter;

use super::failure::refused_by_system;
use super::instance::Idle;
use crate::config::GuestLimits;
use crate::error::Error;
use crate::metrics::Metrics;

/// Linear memory for all guests together. A guest that starts or grows takes from it, a guest that ends gives back.
#[derive(Debug)]
pub struct Budget {
    free: AtomicUsize,
    /// Who gives memory back when there is none.
    idle: Weak<Idle>,
}

impl Budget {
    /// `bytes` for all. Instances that wait for a request end when somebody needs their memory.
    pub fn new(bytes: usize, idle: &Arc<Idle>) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(bytes), idle: Arc::downgrade(idle) })
    }

    fn take(&self, bytes: usize) -> bool {
        while self.free.fetch_update(Relaxed, Relaxed, |free| free.checked_sub(bytes)).is_err() {
            if !self.idle.upgrade().is_some_and(|idle| idle.reclaim()) {
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
pub struct Limiter {
    limits: GuestLimits,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    memory: usize,
    refused: Option<Refused>,
}

#[derive(Debug, Clone, Copy)]
enum Refused {
    GuestMemory,
    AllMemory,
    Table,
}

impl Limiter {
    /// For a guest that has nothing yet.
    pub fn new(limits: GuestLimits, budget: Arc<Budget>, metrics: Arc<Metrics>) -> Self {
        Self { limits, budget, metrics, memory: 0, refused: None }
    }

    /// Linear memory that the guest has, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Forgets what was refused: another request begins in the same instance.
    pub fn forgive(&mut self) {
        self.refused = None;
    }

    /// The failure of a guest, if it comes from what was refused.
    pub fn failure(&self, detail: impl FnOnce() -> String) -> Option<Error> {
        Some(match self.refused? {
            Refused::GuestMemory => Error::GuestOutOfMemory(detail()),
            Refused::AllMemory => Error::HostOutOfMemory(detail()),
            Refused::Table => Error::GuestTableTooLarge(detail()),
        })
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        if self.memory.saturating_add(more) > self.limits.memory {
            self.refused = Some(Refused::GuestMemory);
        } else if !self.budget.take(more) {
            self.refused = Some(Refused::AllMemory);
        } else {
            self.memory += more;
            return Ok(true);
        }
        Ok(false)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if refused_by_system(&error).is_some() {
            self.refused = Some(Refused::AllMemory);
        }
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= self.limits.table_elements;
        if !allowed {
            self.refused = Some(Refused::Table);
        }
        Ok(allowed)
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.budget.give(self.memory);
        self.metrics.guest_memory(self.memory);
    }
}
