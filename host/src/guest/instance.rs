//! One instance of the component in its store, and the instances that wait for their next request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::Request;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::{p2, p3};

use super::failure::failure;
use super::reply::Head;
use super::store::{Owner, State};
use super::{wasi02, wasi03};
use crate::body::RequestBody;
use crate::error::Error;
use crate::metrics::{Metrics, Retired};
use crate::settings::Reuse;

/// A component with its imports resolved.
pub enum Linked {
    /// `wasi:http/incoming-handler@0.2.x`.
    Wasi02(p2::bindings::ProxyPre<State>),
    /// `wasi:http/handler@0.3.x`.
    Wasi03(p3::bindings::ServicePre<State>),
}

enum Exports {
    Wasi02(p2::bindings::Proxy),
    Wasi03(p3::bindings::Service),
}

/// An instance in its store.
pub struct Instance {
    store: Store<State>,
    exports: Exports,
    /// Requests that it has answered.
    requests: u32,
    idle_since: Instant,
}

impl Instance {
    /// Instantiates the component in a store.
    ///
    /// # Errors
    /// Why its start fails.
    pub async fn start(linked: &Linked, mut store: Store<State>) -> Result<Self, (wasmtime::Error, Store<State>)> {
        let exports = match linked {
            Linked::Wasi02(pre) => pre.instantiate_async(&mut store).await.map(Exports::Wasi02),
            Linked::Wasi03(pre) => pre.instantiate_async(&mut store).await.map(Exports::Wasi03),
        };
        match exports {
            Ok(exports) => Ok(Self { store, exports, requests: 0, idle_since: Instant::now() }),
            Err(error) => Err((error, store)),
        }
    }

    /// Hands one request to the component; see [`wasi02::run`] and [`wasi03::run`]. After an error it is of no more use.
    ///
    /// # Errors
    /// How the guest failed.
    pub async fn run(&mut self, request: Request<RequestBody>, head: oneshot::Sender<Head>) -> Result<(), Error> {
        let ended = match &self.exports {
            Exports::Wasi02(proxy) => wasi02::run(proxy, &mut self.store, request, head).await,
            Exports::Wasi03(service) => wasi03::run(service, &mut self.store, request, head).await,
        };
        self.requests += 1;
        ended.map_err(|error| failure(error, self.store.data().limiter()))
    }

    /// Store and handler of a component of WASI 0.3, for one who runs it otherwise.
    pub fn into_service(self) -> Option<(p3::bindings::Service, Store<State>)> {
        match self.exports {
            Exports::Wasi02(_) => None,
            Exports::Wasi03(service) => Some((service, self.store)),
        }
    }

    /// Linear memory that it has, in bytes.
    pub fn memory(&self) -> usize {
        self.store.data().limiter().memory()
    }
}

/// An instance that answers a request. Dropped, the instance ends; see [`Lease::keep`].
pub struct Lease {
    instance: Option<Instance>,
    idle: Arc<Idle>,
}

impl Lease {
    /// Hands the request to the component; see [`Instance::run`]. Returns the lease where others may have the instance.
    ///
    /// # Errors
    /// How the guest failed.
    pub async fn run(
        mut self,
        request: Request<RequestBody>,
        head: oneshot::Sender<Head>,
    ) -> Result<Option<Self>, Error> {
        if let Some(instance) = &mut self.instance {
            instance.run(request, head).await?;
        }
        Ok(self.idle.is_used().then_some(self))
    }

    /// Keeps the instance for others, unless it has done or grown enough.
    pub fn keep(mut self) {
        if let Some(instance) = self.instance.take() {
            self.idle.keep(instance);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.instance.take().is_some() && self.idle.is_used() {
            self.idle.metrics.instance_retired(Retired::Failed);
        }
    }
}

/// Instances between two requests. Empty unless `--instance-reuse` asks for more than one request each.
#[derive(Debug)]
pub struct Idle {
    reuse: Reuse,
    /// The one that was used last is at the back: it is warm, and those that are not needed grow old.
    instances: Mutex<VecDeque<Instance>>,
    metrics: Arc<Metrics>,
}

impl Idle {
    /// None yet.
    pub fn new(reuse: Reuse, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { reuse, instances: Mutex::default(), metrics })
    }

    /// Whether instances answer more than one request.
    pub fn is_used(&self) -> bool {
        self.reuse.requests > 1
    }

    /// An instance that has served others, for a new owner.
    pub fn take(self: &Arc<Self>, owner: &Owner) -> Option<Lease> {
        if !self.is_used() {
            return None;
        }
        let mut instance = self.lock().pop_back()?;
        instance.store.data_mut().hand_over(owner);
        Some(self.lease(instance))
    }

    /// A new instance.
    pub fn lease(self: &Arc<Self>, instance: Instance) -> Lease {
        Lease { instance: Some(instance), idle: self.clone() }
    }

    fn keep(&self, mut instance: Instance) {
        if instance.requests >= self.reuse.requests {
            return self.metrics.instance_retired(Retired::Requests);
        }
        if instance.memory() > self.reuse.memory {
            return self.metrics.instance_retired(Retired::Memory);
        }
        instance.store.data_mut().let_go();
        instance.idle_since = Instant::now();
        self.lock().push_back(instance);
    }

    /// Ends the one that has waited longest, because its memory is needed. False where none waits.
    pub fn reclaim(&self) -> bool {
        let oldest = self.lock().pop_front(); // the lock is free again before the instance gives its memory back
        let found = oldest.is_some();
        if found {
            self.metrics.instance_retired(Retired::Memory);
        }
        found
    }

    /// Ends those that have waited for longer than `--instance-idle`.
    pub fn retire_old(&self) {
        let old: Vec<Instance> = {
            let mut instances = self.lock();
            let young = instances.iter().position(|one| one.idle_since.elapsed() < self.reuse.idle);
            let old = young.unwrap_or(instances.len());
            instances.drain(..old).collect()
        };
        for _ in old {
            self.metrics.instance_retired(Retired::Idle);
        }
    }

    /// How often [`Idle::retire_old`] is to be called; never where nothing is reused.
    pub fn period(&self) -> Option<Duration> {
        self.is_used().then(|| (self.reuse.idle / 2).max(Duration::from_millis(1)))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Instance>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("requests", &self.requests).finish_non_exhaustive()
    }
}
