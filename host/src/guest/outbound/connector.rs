//! From a name to a connection: only to addresses that the name may lead to, and only for so long.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use super::address::may_reach;
use super::refusal::{Refusal, Refused};

/// Resolves a name and leaves out the addresses that it must not lead to. The connection goes to one of those that are
/// left, so that a name cannot lead elsewhere a moment later.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    networks: Arc<[ipnet::IpNet]>,
}

impl Resolver {
    /// Names may lead to public addresses, and into these networks.
    pub(crate) fn new(networks: &[ipnet::IpNet]) -> Self {
        Self { networks: networks.into() }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let networks = self.networks.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found: Vec<SocketAddr> = found.map_err(|_| Refused(Refusal::NoSuchName))?.collect();
            let open: Vec<_> = found.iter().copied().filter(|found| may_reach(found.ip(), &networks)).collect();
            match (open.is_empty(), found.is_empty()) {
                (false, _) => Ok(open.into_iter()),
                (true, false) => Err(Refused(Refusal::Prohibited)),
                (true, true) => Err(Refused(Refusal::NoSuchName)),
            }
        })
    }
}

/// Connects within a time, name and TLS included.
#[derive(Debug, Clone)]
pub(crate) struct BoundedConnector {
    connector: HttpsConnector<HttpConnector<Resolver>>,
    timeout: Duration,
}

impl BoundedConnector {
    /// `timeout` is `--outbound-connect-timeout`.
    pub(crate) fn new(connector: HttpsConnector<HttpConnector<Resolver>>, timeout: Duration) -> Self {
        Self { connector, timeout }
    }
}

impl Service<Uri> for BoundedConnector {
    type Response = <HttpsConnector<HttpConnector<Resolver>> as Service<Uri>>::Response;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, until) = (self.connector.call(uri), Instant::now() + self.timeout);
        Box::pin(async move {
            match timeout_at(until, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(Refused(Refusal::ConnectTimeout).into()),
            }
        })
    }
}
