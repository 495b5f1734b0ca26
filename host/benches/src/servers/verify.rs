//! Right before fast: a server that does not give the expected responses is not measured.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::servers::server::Component;

/// Sends a server the requests whose responses the benchmark relies on.
///
/// # Errors
/// Names the first request whose response differs.
pub fn responses(target: SocketAddr, component: Component, token: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match component {
            Component::Hello => hello(target, token).await,
            Component::Echo => echo(target).await,
        }
    })
}

async fn hello(target: SocketAddr, token: &str) -> anyhow::Result<()> {
    let greeting = (200, r#"{"message":"Hello World"}"#);
    let refusal = (403, r#"{"error":"Invalid auth token"}"#);
    let bearer = format!("Bearer {token}");
    for (path, fields, (status, body)) in [
        ("/app", &[("x-auth-token", token)][..], greeting),
        ("/app", &[("authorization", &bearer)], greeting),
        ("/app", &[("x-auth-token", "wrong")], refusal),
        ("/app", &[("x-auth-token", token), ("x-auth-token", token)], refusal),
        ("/app", &[], refusal),
        ("/ping", &[], (200, "OK")),
        ("/nowhere", &[], (404, r#"{"error":"Not found"}"#)),
    ] {
        let mut request = Request::get(path).header("host", target.to_string());
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (found_status, found_body) = exchange(target, request.body(Full::default())?).await.context(path)?;
        let found_body = String::from_utf8_lossy(&found_body);
        ensure!(
            (found_status, &*found_body) == (status, body),
            "GET {path} with {} fields: {found_status} {found_body}, and not {status} {body}",
            fields.len()
        );
    }
    Ok(())
}

async fn echo(target: SocketAddr) -> anyhow::Result<()> {
    let body: Bytes = (0..64 * 1024_u32).map(|number| (number % 251) as u8).collect();
    let request = Request::post("/echo").header("host", target.to_string()).body(Full::new(body.clone()))?;
    let (status, found) = exchange(target, request).await.context("/echo")?;
    ensure!(status == 200 && found == body, "POST /echo: {status} and {} bytes, and not the body", found.len());
    Ok(())
}

async fn exchange(target: SocketAddr, request: Request<Full<Bytes>>) -> anyhow::Result<(u16, Bytes)> {
    let stream = TcpStream::connect(target).await?;
    let (mut sender, connection): (SendRequest<_>, _) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
