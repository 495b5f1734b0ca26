//! The machinery: the guests, a host in this process, the real binary as a process, and clients.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, LazyLock, Mutex, Once};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use taffrail::cli::{self, CommandLine};
use taffrail::config::Config;
use taffrail::{Drained, Host};
use tokio::net::TcpStream;

/// Nothing in a test may hang: what takes this long has failed. No test relies on its length.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const TOKEN: &str = "one&^token";

/// Whether the guests of this run are those of WASI 0.3. `make test` runs the suite over both.
pub static IS_0_3: LazyLock<bool> = LazyLock::new(|| match std::env::var("TAFFRAIL_TEST_WASI").as_deref() {
    Ok("0.3") => true,
    Ok("0.2") | Err(_) => false,
    Ok(other) => panic!("TAFFRAIL_TEST_WASI is 0.2 or 0.3, not {other}"),
});

/// Components, built once by the run itself. Returns their folder.
fn build(packages: &[&[&str]]) -> PathBuf {
    for package in packages {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--release", "--target", "wasm32-wasip2"])
            .args(*package)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the test components do not build; is the target there? Try `make setup`");
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target folder");
    target.join("wasm32-wasip2/release")
}

/// The file of a component: `hello`, or a guest by its name.
pub fn component(name: &str) -> PathBuf {
    static COMPONENTS: LazyLock<PathBuf> =
        LazyLock::new(|| build(&[&["-p", "guests", "--examples"], &["-p", "hello"]]));
    match name {
        guest if *IS_0_3 => component03(guest),
        "hello" => COMPONENTS.join("hello.wasm"),
        guest => COMPONENTS.join(format!("examples/{guest}.wasm")),
    }
}

/// The same for WASI 0.3, whichever the run is over.
pub fn component03(name: &str) -> PathBuf {
    static COMPONENTS: LazyLock<PathBuf> = LazyLock::new(|| build(&[&["-p", "guests03", "--examples"]]));
    COMPONENTS.join(format!("examples/{name}03.wasm"))
}

/// What the hosts in this process have last logged of requests that failed: there is no other way to a trap's cause.
static FAILURES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
const FAILURES_KEPT: usize = 4096;

struct Failures;

impl Write for Failures {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut failures = FAILURES.lock().expect("no test panics with the log");
        if failures.len() == FAILURES_KEPT {
            failures.pop_front();
        }
        failures.push_back(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a host in this process has logged of the request that was answered so. With `--access-log errors` it logs each.
pub fn why(answer: &Answer) -> String {
    let id = answer.header("x-request-id");
    let failures = FAILURES.lock().expect("no test panics with the log");
    failures.iter().find(|line| line.contains(id)).cloned().unwrap_or_else(|| "nothing was logged".to_owned())
}

/// A host in this process.
pub struct TestHost {
    host: Option<Host>,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
}

/// A host to be started.
pub struct Setup {
    arguments: Vec<String>,
}

impl TestHost {
    pub fn serving(name: &str) -> Setup {
        Setup::file(&component(name))
    }

    /// Drains, on a task of its own.
    pub fn drain(&mut self) -> tokio::task::JoinHandle<Drained> {
        tokio::spawn(self.host.take().expect("drained once").drain())
    }
}

impl Setup {
    pub fn file(file: &Path) -> Self {
        let component = file.display().to_string();
        let arguments = ["serve", &component, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        Self { arguments: arguments.map(str::to_owned).to_vec() }
    }

    pub fn with(mut self, flag: &str, value: &str) -> Self {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.arguments.push(flag.to_owned());
        self
    }

    pub fn config(&self) -> Result<Config, cli::Faults> {
        let arguments = std::iter::once("taffrail").chain(self.arguments.iter().map(String::as_str));
        match CommandLine::try_parse_from(arguments).expect("flags that exist").command {
            cli::Command::Serve(flags) => flags.check(),
            other => panic!("{other:?}"),
        }
    }

    pub async fn start(self) -> TestHost {
        let host = self.try_start().await.expect("the host starts");
        TestHost { addr: host.address(), admin: host.admin_address(), host: Some(host) }
    }

    pub async fn try_start(self) -> anyhow::Result<Host> {
        static LOG: Once = Once::new();
        LOG.call_once(|| {
            let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false);
            log.with_writer(|| Failures).init();
        });
        Host::start(self.config()?).await
    }

    /// Starts the real binary and waits until it is ready.
    pub fn spawn(self) -> Process {
        self.spawn_with(&[])
    }

    /// The same in an environment of its own.
    pub fn spawn_with(self, environment: &[(&str, &str)]) -> Process {
        let mut command = self.command();
        let process = Process::spawn({
            command.envs(environment.iter().copied());
            command
        });
        process.wait_for_line("\"ready\"");
        process
    }

    pub fn command(self) -> Command {
        let mut command = Command::new(binary());
        command.args(self.arguments);
        command
    }
}

/// The binary under test: the one of this build, or another that `make` names (an optimised one, for the soak).
pub fn binary() -> PathBuf {
    std::env::var_os("TAFFRAIL_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_taffrail").into(), PathBuf::from)
}

/// The real binary. Its log is shown when the test fails, and it ends with the test.
pub struct Process {
    child: Child,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary runs");
        let log = Arc::<(Mutex<Vec<String>>, Condvar)>::default();
        let (stderr, lines) = (child.stderr.take().expect("a pipe"), log.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
                lines.1.notify_all();
            }
        });
        Self { child, log, reader: Some(reader) }
    }

    /// Waits until the log has a line with this text, and returns the line.
    pub fn wait_for_line(&self, text: &str) -> String {
        let has = |lines: &Vec<String>| lines.iter().find(|line| line.contains(text)).cloned();
        let lines = self.log.0.lock().unwrap();
        let (lines, _) = self.log.1.wait_timeout_while(lines, PATIENCE, |lines| has(lines).is_none()).unwrap();
        has(&lines).unwrap_or_else(|| panic!("no log line with {text:?}"))
    }

    pub fn log(&self) -> String {
        self.log.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n")
    }

    /// The log of a process that has ended, to its last line.
    pub fn whole_log(&mut self) -> String {
        self.reader.take().expect("asked once").join().expect("no panic");
        self.log()
    }

    fn address(&self, key: &str) -> SocketAddr {
        let line: serde_json::Value = serde_json::from_str(&self.wait_for_line("\"ready\"")).expect("a JSON line");
        line[key].as_str().and_then(|address| address.parse().ok()).expect("an address")
    }

    pub fn addr(&self) -> SocketAddr {
        self.address("listen")
    }

    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// The processes that it has started and that run.
    pub fn children(&self) -> Vec<rustix::process::Pid> {
        let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat.rsplit(')').next()?.split_whitespace();
            let (state, parent) = (fields.next()?, fields.next()?.parse::<u32>().ok()?);
            (parent == self.child.id() && state != "Z").then(|| rustix::process::Pid::from_raw(pid))?
        });
        processes.collect()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let since = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// CPU time that the process has used, from `/proc` (ticks of 10 ms).
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a running process");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        Duration::from_millis(fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks") * 10).sum())
    }

    /// Resident memory now, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    pub fn may_have_huge_pages(&self) -> bool {
        self.status("THP_enabled:") != 0
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("a running process").count()
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// Resident memory at its peak, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of the process\n{}\n---", self.log());
        }
    }
}

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

/// Asks again for as long as the host is overloaded, without patience: for requests that are to be aborted.
pub async fn insist(protocol: Protocol, addr: SocketAddr, target: &str) -> Answer {
    let mut client = Client::connect(protocol, addr).await;
    loop {
        let answer = client.send(request("GET", addr, target, &[])).await.expect("an answer");
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return answer;
        }
    }
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

/// A component in text form that exports the handler, with something before it.
pub fn wat_component(prelude: &str) -> tempfile::NamedTempFile {
    wat_component_with(prelude, "", "")
}

/// The same with something in the module of the handler, and in the handler itself.
pub fn wat_component_with(prelude: &str, module: &str, handler: &str) -> tempfile::NamedTempFile {
    let text = format!(
        r#"(component {prelude}
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core module $module {module} (func (export "handle") (param i32 i32) {handler}))
            (core instance $instance (instantiate $module))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $instance "handle")))
            (component $handler
                (import "request" (type $request (sub resource)))
                (import "out" (type $out (sub resource)))
                (import "handle" (func $handle (param "request" (own $request)) (param "response-out" (own $out))))
                (export $request2 "incoming-request" (type $request))
                (export $out2 "response-outparam" (type $out))
                (export "handle" (func $handle)
                    (func (param "request" (own $request2)) (param "response-out" (own $out2)))))
            (instance $exported (instantiate $handler
                (with "request" (type $request)) (with "out" (type $out)) (with "handle" (func $handle))))
            (export "wasi:http/incoming-handler@0.2.0" (instance $exported)))"#
    );
    wasm_file(&wat::parse_str(text).expect("a component"))
}

/// A file with these bytes.
pub fn wasm_file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".wasm").tempfile().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    file
}
