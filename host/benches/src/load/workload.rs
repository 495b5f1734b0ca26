//! Workloads: what is asked of a server, over which protocol, by how many clients.

const KIB: usize = 1024;

/// The body of `GET /app`.
pub const GREETING: &str = r#"{"message":"Hello World"}"#;

/// The workload of the comparisons that need only one.
pub const TYPICAL: &str = "app-32";

/// How a client uses its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, each client keeps its connection.
    KeepAlive,
    /// HTTP/1.1, each request opens a connection.
    NewConnection,
    /// HTTP/2, all clients are streams of one connection.
    Http2,
}

/// Requests of one kind, by a number of clients at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Its name on the command line and in the JSON.
    pub id: &'static str,
    /// Its name in the tables.
    pub title: &'static str,
    pub protocol: Protocol,
    /// Requests in flight at most.
    pub concurrency: usize,
    /// Bytes that `POST /echo` sends and gets back; 0 for `GET /app` with the token.
    pub body: usize,
}

impl Workload {
    /// Bytes of the expected response's body.
    pub fn response_length(&self) -> u64 {
        if self.body == 0 { GREETING.len() as u64 } else { self.body as u64 }
    }
}

/// Every workload of the benchmark.
pub const WORKLOADS: [Workload; 7] = [
    get("app-1", "GET /app, 1 connection", Protocol::KeepAlive, 1),
    get(TYPICAL, "GET /app, 32 connections", Protocol::KeepAlive, 32),
    get("app-256", "GET /app, 256 connections", Protocol::KeepAlive, 256),
    get("connect", "GET /app, each on a new connection", Protocol::NewConnection, 32),
    get("h2", "GET /app, HTTP/2, 32 streams", Protocol::Http2, 32),
    echo("echo", "POST 64 KiB, echoed", 32, 64 * KIB),
    echo("stream", "10 MiB up and down", 4, 10 * KIB * KIB),
];

const fn get(id: &'static str, title: &'static str, protocol: Protocol, concurrency: usize) -> Workload {
    Workload { id, title, protocol, concurrency, body: 0 }
}

const fn echo(id: &'static str, title: &'static str, concurrency: usize, body: usize) -> Workload {
    Workload { id, title, protocol: Protocol::KeepAlive, concurrency, body }
}
