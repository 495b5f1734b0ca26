//! Instances that wait for their next request, where `--instance-reuse` has an instance answer more than one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::Request;
use tokio::sync::oneshot;

use super::instance::Instance;
use super::limits::Reclaim;
use super::response::Head;
use super::store::RequestScope;
use crate::config::Reuse;
use crate::error::Error;
use crate::http::request_body::RequestBody;
use crate::telemetry::metrics::{Metrics, Retired};

/// An instance that answers a request. Dropped, the instance ends; see [`Lease::keep`].
pub(crate) struct Lease {
    instance: Option<Instance>,
    pool: Arc<InstancePool>,
}

impl Lease {
    /// Hands the request to the component; see [`Instance::run`]. Returns the lease where others may have the instance.
    ///
    /// # Errors
    /// How the guest failed.
    pub(crate) async fn run(
        mut self,
        request: Request<RequestBody>,
        head: oneshot::Sender<Head>,
    ) -> Result<Option<Self>, Error> {
        if let Some(instance) = &mut self.instance {
            instance.run(request, head).await?;
        }
        Ok(self.pool.is_used().then_some(self))
    }

    /// Keeps the instance for others, unless it has done or grown enough.
    pub(crate) fn keep(mut self) {
        if let Some(instance) = self.instance.take() {
            self.pool.keep(instance);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.instance.take().is_some() && self.pool.is_used() {
            self.pool.metrics.instance_retired(Retired::Failed);
        }
    }
}

/// An instance that waits.
#[derive(Debug)]
struct Idle {
    instance: Instance,
    since: Instant,
}

/// Instances that wait for a request. Empty unless `--instance-reuse` asks for more than one request each.
#[derive(Debug)]
pub(crate) struct InstancePool {
    reuse: Reuse,
    /// The one that was used last is at the back: it is warm, and those that are not needed grow old.
    instances: Mutex<VecDeque<Idle>>,
    metrics: Arc<Metrics>,
}

impl InstancePool {
    /// An empty pool.
    pub(crate) fn new(reuse: Reuse, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { reuse, instances: Mutex::default(), metrics })
    }

    /// Whether instances answer more than one request.
    pub(crate) fn is_used(&self) -> bool {
        self.reuse.requests > 1
    }

    /// An instance that has answered before, for this request.
    pub(crate) fn take(self: &Arc<Self>, scope: &RequestScope) -> Option<Lease> {
        if !self.is_used() {
            return None;
        }
        let Idle { mut instance, .. } = self.lock().pop_back()?;
        instance.hand_over(scope);
        Some(self.lease(instance))
    }

    /// A new instance.
    pub(crate) fn lease(self: &Arc<Self>, instance: Instance) -> Lease {
        Lease { instance: Some(instance), pool: self.clone() }
    }

    fn keep(&self, mut instance: Instance) {
        if instance.requests() >= self.reuse.requests {
            return self.metrics.instance_retired(Retired::Requests);
        }
        if instance.memory() > self.reuse.memory {
            return self.metrics.instance_retired(Retired::Memory);
        }
        instance.let_go();
        self.lock().push_back(Idle { instance, since: Instant::now() });
    }

    /// Ends those that have waited for longer than `--instance-idle`.
    pub(crate) fn retire_old(&self) {
        let old: Vec<Idle> = {
            let mut instances = self.lock();
            let young = instances.iter().position(|idle| idle.since.elapsed() < self.reuse.idle);
            let old = young.unwrap_or(instances.len());
            instances.drain(..old).collect()
        };
        for _ in old {
            self.metrics.instance_retired(Retired::Idle);
        }
    }

    /// How often [`InstancePool::retire_old`] is to be called; never where nothing is reused.
    pub(crate) fn period(&self) -> Option<Duration> {
        self.is_used().then(|| (self.reuse.idle / 2).max(Duration::from_millis(1)))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reclaim for InstancePool {
    /// Ends the one that has waited longest, because its memory is needed. False where none waits.
    fn reclaim(&self) -> bool {
        let oldest = self.lock().pop_front(); // the lock is free again before the instance gives its memory back
        let found = oldest.is_some();
        if found {
            self.metrics.instance_retired(Retired::Memory);
        }
        found
    }
}
