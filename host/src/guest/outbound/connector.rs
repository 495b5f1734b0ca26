//! A connection to a server: only to addresses that its name may lead to, and only for so long.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use super::refusal::{Refusal, Refused};
use super::resolver::Resolver;

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

type Inner = <HttpsConnector<HttpConnector<Resolver>> as Service<Uri>>::Response;

/// Whether a connection has brought an answer before: it comes from the pool then, and its server may have closed it meanwhile.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered(Arc<AtomicBool>);

impl Answered {
    /// The connection of this response has brought one.
    pub(crate) fn note<B>(response: &Response<B>) {
        if let Some(Self(answered)) = response.extensions().get() {
            answered.store(true, Relaxed);
        }
    }

    /// Whether the connection on which this error occurred has brought one.
    pub(crate) fn before(error: &hyper_util::client::legacy::Error) -> bool {
        let mut extras = hyper::http::Extensions::new();
        if let Some(connection) = error.connect_info() {
            connection.get_extras(&mut extras);
        }
        extras.get().is_some_and(|Self(answered)| answered.load(Relaxed))
    }
}

/// A connection that knows whether it has brought an answer.
#[derive(Debug)]
pub(crate) struct ServerConnection {
    inner: Inner,
    answered: Answered,
}

impl Connection for ServerConnection {
    fn connected(&self) -> Connected {
        self.inner.connected().extra(self.answered.clone())
    }
}

impl Read for ServerConnection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl Write for ServerConnection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, pieces)
    }
}

impl Service<Uri> for BoundedConnector {
    type Response = ServerConnection;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, until) = (self.connector.call(uri), Instant::now() + self.timeout);
        Box::pin(async move {
            match timeout_at(until, connecting).await {
                Ok(connected) => connected.map(|inner| ServerConnection { inner, answered: Answered::default() }),
                Err(_) => Err(Refused(Refusal::ConnectTimeout).into()),
            }
        })
    }
}
