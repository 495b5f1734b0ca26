//! A request that counts against `--max-in-flight`: slot, gauge and drain stay in step, since one guard holds them.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::telemetry::metrics::Metrics;

/// One request that counts against the limit. It lives until the guest has ended, and its response has, or waits for nobody but
/// the client and is charged to another account.
#[derive(Debug)]
pub(crate) struct InFlight {
    _slot: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl InFlight {
    /// `slot` is its share of the limit.
    pub(crate) fn new(slot: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.entered();
        Arc::new(Self { _slot: slot, metrics })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.left();
    }
}
