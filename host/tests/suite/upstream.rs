//! A server of the test: keeps what it is sent, and answers as the test says.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::PATIENCE;

pub struct Upstream {
    pub addr: SocketAddr,
    requests: mpsc::UnboundedReceiver<Request<Bytes>>,
}

impl Upstream {
    /// Answers every request at once, over HTTP/1.1 and HTTP/2.
    pub async fn start(answer: fn(&Request<Bytes>) -> Response<Full<Bytes>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
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
                let builder = auto::Builder::new(TokioExecutor::new());
                tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), service).await });
            }
        });
        Self { addr, requests }
    }

    /// The next request that came.
    pub async fn next(&mut self) -> Request<Bytes> {
        let next = tokio::time::timeout(PATIENCE, self.requests.recv()).await.expect("a request in time");
        next.expect("the server runs")
    }
}
