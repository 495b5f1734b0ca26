//! One instance of the component in its store.

use hyper::Request;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::{p2, p3};

use super::failure::failure;
use super::response::Head;
use super::store::{RequestScope, State};
use super::{wasi02, wasi03};
use crate::error::Error;
use crate::http::request_body::RequestBody;

/// A component with its imports resolved.
pub(crate) enum Linked {
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
pub(crate) struct Instance {
    store: Store<State>,
    exports: Exports,
    /// Requests that it has answered.
    requests: u32,
}

impl Instance {
    /// Instantiates the component in a store.
    ///
    /// # Errors
    /// Why its start fails.
    pub(crate) async fn start(
        linked: &Linked,
        mut store: Store<State>,
    ) -> Result<Self, (wasmtime::Error, Store<State>)> {
        let exports = match linked {
            Linked::Wasi02(pre) => pre.instantiate_async(&mut store).await.map(Exports::Wasi02),
            Linked::Wasi03(pre) => pre.instantiate_async(&mut store).await.map(Exports::Wasi03),
        };
        match exports {
            Ok(exports) => Ok(Self { store, exports, requests: 0 }),
            Err(error) => Err((error, store)),
        }
    }

    /// Hands one request to the component; see [`wasi02::run`] and [`wasi03::run`]. After an error it is of no more use.
    ///
    /// # Errors
    /// How the guest failed.
    pub(crate) async fn run(
        &mut self,
        request: Request<RequestBody>,
        head: oneshot::Sender<Head>,
    ) -> Result<(), Error> {
        let ended = match &self.exports {
            Exports::Wasi02(proxy) => wasi02::run(proxy, &mut self.store, request, head).await,
            Exports::Wasi03(service) => wasi03::run(service, &mut self.store, request, head).await,
        };
        self.requests += 1;
        ended.map_err(|error| failure(error, self.store.data().limiter()))
    }

    /// Store and handler of a component of WASI 0.3, for one who runs it otherwise.
    pub(crate) fn into_service(self) -> Option<(p3::bindings::Service, Store<State>)> {
        match self.exports {
            Exports::Wasi02(_) => None,
            Exports::Wasi03(service) => Some((service, self.store)),
        }
    }

    /// Requests that it has answered.
    pub(crate) fn requests(&self) -> u32 {
        self.requests
    }

    /// It now runs for another request.
    pub(crate) fn hand_over(&mut self, scope: &RequestScope) {
        self.store.data_mut().hand_over(scope);
    }

    /// Its request is over, and there is no other yet.
    pub(crate) fn let_go(&mut self) {
        self.store.data_mut().let_go();
    }

    /// Linear memory that it has, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.store.data().limiter().memory()
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("requests", &self.requests).finish_non_exhaustive()
    }
}
