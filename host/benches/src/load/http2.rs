//! HTTP/2: one connection, and as many streams at once as there are clients. hyper's client, which costs more than
//! h2load does: the ratios of this workload are kinder to slow servers than those over HTTP/1.1.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::load::workload::Workload;

/// One client of a connection that it shares.
#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Empty<Bytes>>,
    request: Request<()>,
    expected: u64,
}

impl Client {
    /// Opens the connection.
    pub async fn connect(target: SocketAddr, workload: &Workload, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(format!("http://{target}/app")).header("x-auth-token", token).body(())?;
        Ok(Self { sender, request, expected: workload.response_length() })
    }

    /// One request and its whole response.
    pub async fn request(&mut self) -> anyhow::Result<()> {
        self.sender.ready().await?;
        let response = self.sender.send_request(self.request.clone().map(|()| Empty::new())).await?;
        ensure!(response.status() == StatusCode::OK, "status {}", response.status());
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        ensure!(length == self.expected, "{length} bytes instead of {}", self.expected);
        Ok(())
    }
}
