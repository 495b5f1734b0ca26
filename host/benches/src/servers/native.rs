//! The baseline: hyper without a sandbox. It gives the hello component's own answers, because it calls the
//! same code, and runs as the host does: tokio's default runtime, the same allocator, no delay, HTTP/1.1 and HTTP/2 on one
//! port. It has none of the host's limits, metrics and request ids.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hello::routes::{self, Inputs};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

/// The host's allocator, so that the two differ in the sandbox alone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves until the process is ended.
///
/// # Errors
/// When the port cannot be had.
pub fn serve(listen: SocketAddr, tokens: String) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        eprintln!("listening on {}", listener.local_addr()?);
        let tokens: Arc<str> = tokens.into();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(connection(stream, tokens.clone()));
        }
    })
}

async fn connection(stream: TcpStream, tokens: Arc<str>) {
    let _ = stream.set_nodelay(true);
    let mut start = [0; 3];
    let speaks_http2 = stream.peek(&mut start).await.is_ok() && start == *b"PRI";
    let service = service_fn(move |request| {
        let tokens = tokens.clone();
        async move { respond(request, &tokens) }
    });
    // An error ends the connection, which the load generator counts.
    let _ = if speaks_http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
    } else {
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
    };
}

fn respond(request: Request<Incoming>, tokens: &str) -> anyhow::Result<Response<Either<Full<Bytes>, Incoming>>> {
    if request.uri().path() == "/echo" {
        return Ok(Response::new(Either::Right(request.into_body())));
    }
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let inputs = RequestInputs { headers: request.headers(), tokens };
    let answer = routes::answer(request.method().as_str(), target, &inputs);
    let mut response = Response::new(Either::Left(Full::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status)?;
    response.headers_mut().insert(CONTENT_TYPE, answer.content_type.parse()?);
    if let Some(methods) = answer.allow {
        response.headers_mut().insert(ALLOW, methods.parse()?);
    }
    Ok(response)
}

struct RequestInputs<'a> {
    headers: &'a HeaderMap,
    tokens: &'a str,
}

impl Inputs for RequestInputs<'_> {
    fn header(&self, name: &str) -> Vec<Vec<u8>> {
        self.headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect()
    }

    fn auth_tokens(&self) -> String {
        self.tokens.to_owned()
    }
}
