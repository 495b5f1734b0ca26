//! Clients, and what they see.

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::PATIENCE;

/// The protocol of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

pub const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

pub type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A client with one connection.
pub enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

impl Client {
    pub async fn connect(protocol: Protocol, addr: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(addr).await.expect("the host accepts"));
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.expect("a connection");
                tokio::spawn(connection);
                Self::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("a connection");
                tokio::spawn(connection);
                Self::Http2(sender)
            }
        }
    }

    /// Sends a request and waits for the head of the answer. The URI is absolute: HTTP/1.1 gets a path and a `Host`.
    pub async fn open(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                let authority = request.uri().authority().expect("an absolute URI").to_string();
                let target = request.uri().path_and_query().expect("a path").as_str().parse().expect("a target");
                *request.uri_mut() = target;
                if !request.headers().contains_key("host") {
                    request.headers_mut().insert("host", authority.parse().expect("a host"));
                }
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Answer> {
        whole(self.open(request).await?).await
    }

    /// Waits until the host has closed the connection.
    pub async fn closed(&mut self) {
        let closed = async {
            match self {
                Self::Http1(sender) => {
                    while sender.ready().await.is_ok() && !sender.is_closed() {
                        tokio::task::yield_now().await;
                    }
                }
                Self::Http2(sender) => {
                    while sender.ready().await.is_ok() && !sender.is_closed() {
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.expect("the connection closes");
    }
}

/// Reads an answer to its end.
pub async fn whole(response: Response<Incoming>) -> hyper::Result<Answer> {
    let (head, body) = response.into_parts();
    let collected = tokio::time::timeout(PATIENCE, body.collect()).await.expect("the body ends")?;
    let trailers = collected.trailers().cloned();
    Ok(Answer { status: head.status, headers: head.headers, body: collected.to_bytes(), trailers })
}

/// A request without a body.
pub fn request(method: &str, addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Request<Body> {
    request_with(method, addr, target, headers, Empty::new().boxed_unsync())
}

pub fn request_with(
    method: &str,
    addr: SocketAddr,
    target: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Request<Body> {
    let builder = Request::builder().method(method).uri(format!("http://{addr}{target}"));
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    builder.body(body).expect("a request")
}

/// A body that the test writes piece by piece.
pub fn open_body() -> (http_body_util::channel::Sender<Bytes, std::convert::Infallible>, Body) {
    let (sender, body) = http_body_util::channel::Channel::new(1);
    (sender, body.boxed_unsync())
}

/// One request on a connection of its own.
pub async fn ask(protocol: Protocol, addr: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = async {
        let mut client = Client::connect(protocol, addr).await;
        client.send(request(method, addr, target, headers)).await
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time");
    answer.unwrap_or_else(|error| panic!("{method} {target}: {error:?}"))
}

pub async fn get(addr: SocketAddr, target: &str) -> Answer {
    ask(Protocol::Http1, addr, "GET", target, &[]).await
}

/// Asks again for as long as the host is overloaded: for requests that are to be aborted.
pub async fn insist(protocol: Protocol, addr: SocketAddr, target: &str) -> Answer {
    let mut client = Client::connect(protocol, addr).await;
    let asking = async {
        loop {
            let answer = client.send(request("GET", addr, target, &[])).await.expect("an answer");
            if answer.status != StatusCode::SERVICE_UNAVAILABLE {
                return answer;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the host has room for it")
}

/// Whether an answer has ended so that its client knows that it is not whole: over HTTP/1.1 the connection ends within the body,
/// over HTTP/2 the stream is reset: for an error of the body, or (CANCEL) because the host dropped a body that had more to come. No
/// other failure is a cut.
pub fn is_cut(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(http2) = cause.downcast_ref::<h2::Error>() {
            let reasons = [h2::Reason::INTERNAL_ERROR, h2::Reason::CANCEL];
            return http2.is_remote() && http2.is_reset() && http2.reason().is_some_and(|why| reasons.contains(&why));
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return [ConnectionReset, UnexpectedEof].contains(&io.kind());
        }
        source = cause.source();
    }
    error.is_incomplete_message()
}

/// Reads an answer that must be cut.
pub async fn cut(response: Response<Incoming>) {
    let error = whole(response).await.expect_err("it must be cut, and is whole");
    assert!(is_cut(&error), "failed, and was not cut: {error:?}");
}

/// Sends bytes as they are and returns all that comes back until the host closes.
pub async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(addr).await.expect("the host accepts");
    stream.write_all(bytes).await.expect("the host reads");
    let mut back = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut back)).await.expect("the host closes");
    let mut text = String::from_utf8_lossy(&back).into_owned();
    if let Err(error) = read {
        let _ = write!(text, "<{error}>");
    }
    text
}
