//! A server of the test: keeps what it is sent, and answers as the test says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::support::PATIENCE;

pub struct Upstream {
    pub addr: SocketAddr,
    /// Connections that were accepted.
    pub connections: Arc<AtomicUsize>,
    requests: mpsc::UnboundedReceiver<Request<Bytes>>,
}

impl Upstream {
    /// Answers every request at once, over HTTP/1.1 and HTTP/2.
    pub async fn start(answer: fn(&Request<Bytes>) -> Response<Full<Bytes>>) -> Self {
        Self::serve(None, answer).await
    }

    /// The same behind TLS, which offers both protocols.
    pub async fn start_tls(
        tls: tokio_rustls::rustls::ServerConfig,
        answer: fn(&Request<Bytes>) -> Response<Full<Bytes>>,
    ) -> Self {
        Self::serve(Some(TlsAcceptor::from(Arc::new(tls))), answer).await
    }

    async fn serve(tls: Option<TlsAcceptor>, answer: fn(&Request<Bytes>) -> Response<Full<Bytes>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let connections = Arc::<AtomicUsize>::default();
        let (sender, requests) = mpsc::unbounded_channel();
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Relaxed);
                let sender = sender.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let sender = sender.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        let request = Request::from_parts(head, body);
                        let response = answer(&request);
                        let _ = sender.send(request);
                        Ok::<_, Infallible>(response)
                    }
                });
                let (builder, tls) = (auto::Builder::new(TokioExecutor::new()), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => builder.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => Ok(()), // a client that does not trust us
                        },
                    }
                });
            }
        });
        Self { addr, connections, requests }
    }

    /// Whether no request has come that was not asked for by [`Upstream::next`].
    pub fn is_quiet(&self) -> bool {
        self.requests.is_empty()
    }

    /// The next request that came.
    pub async fn next(&mut self) -> Request<Bytes> {
        let next = tokio::time::timeout(PATIENCE, self.requests.recv()).await.expect("a request in time");
        next.expect("the server runs")
    }
}
