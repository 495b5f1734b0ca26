//! The admin listener: answers probes and scrapes on a thread and a runtime of its own, so that they are answered however busy the
//! guests are.

mod heartbeat;
mod status;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::RuntimeMetrics;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::lifecycle::Lifecycle;
use crate::telemetry::metrics::{self, Metrics};
use heartbeat::Heartbeat;
use status::Status;

/// Every path that the admin listener answers.
pub(crate) const PATHS: &[&str] = &[STATUS, LIVEZ, READYZ, VERSION, METRICS];

const STATUS: &str = "/";
const LIVEZ: &str = "/livez";
const READYZ: &str = "/readyz";
const VERSION: &str = "/version";
const METRICS: &str = "/metrics";

/// Probes and scrapes are few. When there are as many connections as this, the oldest makes room for a newcomer.
const CONNECTIONS_MAX: usize = 128;

/// How long a connection may take in all, for one request and its answer. Probes have given up by then: the chart's wait for
/// two seconds, `check-health` for as long at each step.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// What a head may have, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// How many turns of tasks go by before the thread looks at its sockets: a probe's request is seen although many others knock.
const EVENT_INTERVAL: u32 = 8;

/// The running admin listener. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Admin {
    address: SocketAddr,
    component: Arc<OnceLock<Component>>,
    _stop: oneshot::Sender<Infallible>,
}

#[derive(Debug)]
struct State {
    lifecycle: Lifecycle,
    component: Arc<OnceLock<Component>>,
    status: Status,
    heartbeat: Heartbeat,
}

/// What is known once the component is loaded.
#[derive(Debug)]
struct Component {
    version: serde_json::Value,
    metrics: Arc<Metrics>,
}

impl Admin {
    /// Binds the address and starts to answer; `traffic` is the runtime whose threads `/livez` speaks of.
    ///
    /// # Errors
    /// When the address is taken, not ours or not allowed.
    pub(crate) fn start(address: SocketAddr, lifecycle: Lifecycle, traffic: RuntimeMetrics) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address} (--admin-listen)"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build()?;
        let component = Arc::<OnceLock<_>>::default();
        let (status, heartbeat) = (Status::default(), Heartbeat::default());
        let state = Arc::new(State { lifecycle, component: component.clone(), status, heartbeat });
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    served = accept(listener, state.clone()) => {
                        if let Err(error) = served {
                            tracing::error!(%error, "the admin listener ended");
                        }
                    }
                    () = state.heartbeat.watch(traffic) => {}
                    _ = stopped => {}
                }
            });
        };
        thread::Builder::new().name("admin".to_owned()).spawn(serve).context("start the admin thread")?;
        Ok(Self { address, component, _stop: stop })
    }

    /// The address that it answers on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The component is loaded: from now on `/version` and `/metrics` answer with these.
    pub(crate) fn publish(&self, version: serde_json::Value, metrics: Arc<Metrics>) {
        let _ = self.component.set(Component { version, metrics });
    }
}

async fn accept(listener: std::net::TcpListener, state: Arc<State>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = VecDeque::with_capacity(CONNECTIONS_MAX); // the oldest first
    tokio::spawn(sample(state.clone()));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection; trying again");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        make_room(&mut connections).await;
        connections.push_back(tokio::spawn(serve(stream, state.clone())));
        tokio::task::yield_now().await; // every connection has a turn before the next one is taken
    }
}

/// Ends the oldest connection where there are as many as there may be.
async fn make_room(connections: &mut VecDeque<JoinHandle<()>>) {
    if connections.len() < CONNECTIONS_MAX {
        return;
    }
    connections.retain(|connection| !connection.is_finished());
    if connections.len() == CONNECTIONS_MAX
        && let Some(oldest) = connections.pop_front()
    {
        oldest.abort();
        let _ = oldest.await; // its descriptor is free
    }
}

/// One request and its answer: who asks again connects again.
async fn serve(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(state.answer(&request))));
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).max_buf_size(HEAD_MAX).header_read_timeout(None);
    match timeout(CONNECTION_TIMEOUT, builder.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection"),
        Err(_) => tracing::debug!("admin connection: its time is over"),
    }
}

/// Feeds the curve of the status page.
async fn sample(state: Arc<State>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        if let Some(component) = state.component.get() {
            state.status.sample(&component.metrics);
        }
    }
}

impl State {
    /// The page needs nothing but itself, and may load nothing else.
    fn status(&self) -> Response<Full<Bytes>> {
        const POLICY: &str =
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
        let component = self.component.get().map(|component| (&component.version, &*component.metrics));
        let page = self.status.page(&self.lifecycle, component);
        let mut response = typed(StatusCode::OK, "text/html; charset=utf-8", page);
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        response
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = match request.uri().path() {
            STATUS => self.status(),
            LIVEZ if self.heartbeat.is_deaf() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "not alive: a thread that serves stands still")
            }
            LIVEZ => text(StatusCode::OK, "alive"),
            READYZ => match self.lifecycle.readiness() {
                Ok(()) => text(StatusCode::OK, "ready"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            VERSION | METRICS => match self.component.get() {
                Some(component) if request.uri().path() == VERSION => json(&component.version),
                Some(component) => metrics(&component.metrics, request.headers()),
                None => text(StatusCode::SERVICE_UNAVAILABLE, "starting: the component is not loaded yet"),
            },
            _ => text(StatusCode::NOT_FOUND, &format!("not found; here are {}", PATHS.join(" "))),
        };
        match *request.method() {
            Method::GET | Method::HEAD => answer,
            _ if answer.status() == StatusCode::NOT_FOUND => answer,
            _ => {
                let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
                refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                refusal
            }
        }
    }
}

/// OpenMetrics for who asks for it, as Prometheus does, else the older text.
fn metrics(metrics: &Metrics, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let accepts =
        |value: &HeaderValue| value.as_bytes().windows(28).any(|part| part == b"application/openmetrics-text");
    if headers.get_all(ACCEPT).iter().any(accepts) {
        typed(StatusCode::OK, metrics::OPEN_METRICS, metrics.open_metrics())
    } else {
        typed(StatusCode::OK, metrics::PROMETHEUS_TEXT, metrics.prometheus_text())
    }
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    typed(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
