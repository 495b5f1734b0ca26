//! The inner parts by themselves, so that a change can be judged in a minute: an instantiation, a call, a body. No socket is
//! in it: client and host speak HTTP/1.1 over memory, on one thread. `hyper alone` is what that costs without a guest.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use taffrail::cli::{Command, CommandLine};
use taffrail::internals::Loaded;
use tokio::runtime::{Builder, Runtime};

/// What the pipe between client and host holds, in bytes: more than a body of these.
const PIPE: usize = 1024 * 1024;
const BODY: usize = 64 * 1024;
const TOKEN: &str = include_str!("../../component/demo-config/auth-tokens");
/// Linear memory for the guests, in bytes.
const MEMORY: u64 = 1024 * 1024 * 1024;

type Client = SendRequest<Full<Bytes>>;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A component of the release build, with every limit as shipped.
fn guest(file: &str, flags: &[&str]) -> Loaded {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (file, config) = (root.join("target/wasm32-wasip2/release").join(file), root.join("component/demo-config"));
    assert!(file.exists(), "{} is missing: run `make bench-inner`", file.display());
    let line =
        ["taffrail", "serve", &file.to_string_lossy(), "--config-dir", &config.to_string_lossy()].map(str::to_owned);
    let line = line.into_iter().chain(flags.iter().map(|flag| (*flag).to_owned()));
    let Ok(CommandLine { command: Command::Serve(flags) }) = CommandLine::try_parse_from(line) else {
        panic!("flags that do not exist: {flags:?}")
    };
    Loaded::new(&flags.check().expect("flags that are right").guest, 8, MEMORY).expect("it loads")
}

/// A client whose requests this guest answers.
async fn client_of(guest: Loaded) -> Client {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let service = service_fn(move |request| {
        let guest = guest.clone();
        async move { guest.answer(request, BODY as u64).await }
    });
    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(theirs), service));
    client(ours).await
}

/// A client whose requests are answered without a guest: with what they bring, or a short text.
async fn client_of_hyper() -> Client {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let service = service_fn(async |request: Request<Incoming>| {
        let brought = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let text = Bytes::from_static(br#"{"message":"Hello World"}"#);
        Ok::<_, Infallible>(Response::new(Full::new(if brought.is_empty() { text } else { brought })))
    });
    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(theirs), service));
    client(ours).await
}

async fn client(stream: tokio::io::DuplexStream) -> Client {
    let (client, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// Asks once, and takes all of the answer. Returns its length in bytes.
async fn once(client: &mut Client, method: &str, target: &str, body: &Bytes) -> usize {
    let request =
        Request::builder().method(method).uri(target).header("host", "x").header("x-auth-token", TOKEN.trim());
    let request = request.body(Full::new(body.clone())).expect("a request");
    client.ready().await.expect("a connection that lives");
    let response = client.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.expect("a body").to_bytes().len()
}

fn instantiate(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("instantiate and end");
    for (version, file) in [("0.2", "hello.wasm"), ("0.3", "examples/hello03.wasm")] {
        let guest = guest(file, &[]);
        group.bench_function(version, |bencher| {
            bencher.iter(|| runtime.block_on(guest.probe()).expect("it starts"));
        });
    }
    group.finish();
}

fn call(criterion: &mut Criterion) {
    let none = Bytes::new();
    compare(criterion, "GET /app", ["hello.wasm", "examples/hello03.wasm"], ("GET", "/app", &none));
}

fn body(criterion: &mut Criterion) {
    let body = Bytes::from(vec![b'~'; BODY]);
    compare(criterion, "64 KiB, echoed", ["examples/echo.wasm", "examples/echo03.wasm"], ("POST", "/", &body));
}

/// A request to hyper alone, to a fresh guest and to one that is used again, of both versions of WASI.
fn compare(criterion: &mut Criterion, what: &str, files: [&str; 2], (method, target, body): (&str, &str, &Bytes)) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group(what);
    if !body.is_empty() {
        group.throughput(Throughput::Bytes(body.len() as u64));
    }
    let mut measure = |id: BenchmarkId, mut client: Client| {
        group.bench_function(id, |bencher| bencher.iter(|| runtime.block_on(once(&mut client, method, target, body))));
    };
    measure(BenchmarkId::from_parameter("hyper alone"), runtime.block_on(client_of_hyper()));
    for (version, file) in ["0.2", "0.3"].into_iter().zip(files) {
        for (name, flags) in [("fresh", &[][..]), ("reuse", &["--instance-reuse", "128"][..])] {
            measure(BenchmarkId::new(name, version), runtime.block_on(client_of(guest(file, flags))));
        }
    }
    group.finish();
}

criterion_group! {
    name = inner;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = instantiate, call, body
}
criterion_main!(inner);
