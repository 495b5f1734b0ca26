//! The real binary: signals, exit status, log.

use std::io::Write as _;
use std::time::Duration;

use rustix::process::Signal;

use crate::metrics::sample;
use crate::support::frames::PREFACE;
use crate::support::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

#[test]
fn it_serves_and_ends_cleanly_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = TestHost::serving("hello").spawn();
        assert_eq!(block_on(get(process.addr(), "/ping")).text(), "OK");
        assert_eq!(block_on(get(process.admin(), "/readyz")).status, 200);
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(0), "{signal:?}");
        process.wait_for_line("nothing was cut");
    }
}

/// Where a node allows huge pages to everybody, every thread and every guest would take some.
#[test]
fn it_takes_no_huge_pages() {
    let process = TestHost::serving("hello").spawn();
    assert!(!process.may_have_huge_pages());
}

/// For a container's health check, where there is neither shell nor curl.
#[test]
fn check_health_asks_a_running_host() {
    let check = |admin: &str| {
        let mut command = std::process::Command::new(binary());
        let output = command.arg("check-health").env("TAFFRAIL_ADMIN_LISTEN", admin).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut process = TestHost::serving("hello").with("--drain-delay", "1h").spawn();
    let admin = process.admin();
    assert_eq!(check(&admin.to_string()), (Some(0), String::new()));
    assert_eq!(
        check(&format!("0.0.0.0:{}", admin.port())),
        (Some(0), String::new()),
        "every interface is the loopback too"
    );
    let (code, said) = check(&process.addr().to_string());
    assert!(code == Some(1) && said.contains("is not Taffrail's admin listener"), "{said}");
    process.signal(Signal::TERM);
    process.wait_for_line("draining");
    let (code, said) = check(&admin.to_string());
    assert!(code == Some(1) && said.contains("not ready: draining"), "{said}");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(1), "asked twice");
    let (code, said) = check(&admin.to_string());
    assert!(code == Some(1) && said.contains("is the host running there?"), "{said}");
    assert!(check("nonsense").1.contains("write IP:PORT"));
}

/// For `helm test`, where there is neither shell nor curl.
#[test]
fn probe_compares_what_comes_back() {
    let host = TestHost::serving("hello").with("--config", "auth-tokens=the-token-of-this-test").spawn();
    let folder = tempfile::tempdir().expect("a folder");
    let (token, empty) = (folder.path().join("token"), folder.path().join("empty"));
    std::fs::write(&token, "the-token-of-this-test\nanother-token-of-it\n").expect("it is written");
    std::fs::write(&empty, "\n").expect("it is written");
    let probe = |url: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(binary());
        let output = command.args(["probe", url, "--within", "0s"]).args(arguments).output().expect("it runs");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code(), said.concat())
    };
    let url = |path: &str| format!("http://{}{path}", host.addr());
    let with_token = format!("X-Auth-Token: {}", token.display());
    for (path, arguments) in [
        ("/ping", &["--expect-body", "OK"][..]),
        ("/ping", &["--method", "POST", "--expect", "405"]),
        ("/app", &["--expect", "403", "--header", "X-Auth-Token: wrong"]),
        ("/app", &["--header-file", &with_token, "--expect-body", "{\"message\":\"Hello World\"}"]),
    ] {
        let (code, said) = probe(&url(path), arguments);
        assert!(code == Some(0) && said.contains("as expected"), "{path} {arguments:?}: {said}");
    }
    let unread = format!("X-Auth-Token: {}", empty.display());
    for (path, arguments, status, wanted) in [
        ("/app", &["--header-file", &with_token, "--expect", "403"][..], 1, "200 \"{"),
        ("/ping", &["--expect-body", "ok"], 1, "200 \"OK\" in the place of 200 \"ok\""),
        ("/ping", &["--expect-refused"], 1, "nobody may answer there"),
        ("/ping", &["--expect", "99"], 2, "99 is not in 100..=599"),
        ("/ping", &["--header", "no header"], 2, "write NAME: VALUE"),
        ("/ping", &["--header-file", "X-A: /nowhere"], 2, "the file cannot be read"),
        ("/ping", &["--header-file", &unread], 2, "the first line of the file is empty"),
        ("/ping", &["--timeout", "5"], 2, "write a number with its unit"),
    ] {
        let (code, said) = probe(&url(path), arguments);
        assert!(code == Some(status) && said.contains(wanted), "{path} {arguments:?}: {code:?} {said}");
        assert!(!said.contains("the-token-of-this-test"), "{said}");
    }
    assert!(probe("https://hello/ping", &[]).1.contains("write one such as http://"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let nobody = format!("http://{closed}/ping");
    assert_eq!(probe(&nobody, &["--expect-refused"]).0, Some(0));
    let (code, said) = probe(&nobody, &[]);
    assert!(code == Some(1) && said.contains("no answer"), "{said}");
}

/// One that comes up late is waited for.
#[test]
fn probe_asks_again() {
    let late = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/ping", late.local_addr().expect("its address"));
    let mut command = std::process::Command::new(binary());
    let mut asking =
        command.args(["probe", &url, "--within", "1m"]).stdout(std::process::Stdio::null()).spawn().expect("it runs");
    for head in ["HTTP/1.1 503 Not Yet", "HTTP/1.1 200 OK"] {
        let (mut stream, _) = late.accept().expect("it asks");
        let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
        std::io::Write::write_all(&mut stream, format!("{head}\r\nContent-Length: 0\r\n\r\n").as_bytes())
            .expect("it reads");
    }
    assert_eq!(asking.wait().expect("it ends").code(), Some(0));
}

/// What is not logged must happen all the same.
#[test]
fn it_serves_and_ends_in_silence() {
    let admin = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let mut command = std::process::Command::new(binary());
    command.arg("serve").arg(component("hello")).args(["--listen", "127.0.0.1:0", "--log", "off"]);
    let mut process = Process::spawn({
        command.arg("--admin-listen").arg(admin.to_string());
        command
    });
    block_on(async {
        let ready = async || match tokio::net::TcpStream::connect(admin).await {
            Ok(_) => get(admin, "/readyz").await.status == 200,
            Err(_) => false,
        };
        eventually("it is ready", ready).await;
    });
    assert!(process.is_running(), "nobody asked it to end");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    assert_eq!(process.whole_log(), "");
}

#[test]
fn work_that_is_cut_is_counted_in_the_log_and_in_the_exit_status() {
    let mut process = TestHost::serving("echo").with("--drain-timeout", "100ms").spawn();
    let addr = process.addr();
    block_on(async {
        let mut client = Client::connect(Protocol::Http1, addr).await;
        let (sender, body) = open_body();
        let response = client.open(request_with("POST", addr, "/", &[], body)).await.expect("a head");
        process.signal(Signal::TERM);
        let line: serde_json::Value = serde_json::from_str(&process.wait_for_line("were cut")).expect("a JSON line");
        assert_eq!(line["cut"], 1);
        drop((client, sender, response));
    });
    assert_eq!(process.wait().code(), Some(1));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut process = TestHost::serving("hello").with("--drain-delay", "1h").spawn();
    process.signal(Signal::TERM);
    process.wait_for_line("\"draining\"");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(1));
    process.wait_for_line("asked twice");
}

/// What the host knows of a client when the signal comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    /// That it may be connected.
    Nothing,
    /// That it has its answer.
    Answered,
    /// A request that will not end.
    InFlight,
}

const MOMENTS: [(&str, &[u8], Known); 15] = [
    ("a silent connection", b"", Known::Nothing),
    ("half a preface", b"PRI * HT", Known::Nothing),
    ("a preface", PREFACE, Known::Nothing),
    ("half a request line", b"GE", Known::Nothing),
    ("half a head", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow:", Known::Nothing),
    ("what is no HTTP", b"\x16\x03\x01\x02\x00", Known::Nothing),
    ("a connection that is kept", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Known::Answered),
    ("half a head behind an answer", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT", Known::Answered),
    ("an answer that failed", b"GET /trap HTTP/1.1\r\nHost: x\r\n\r\n", Known::Answered),
    ("a guest that computes", b"GET /spin HTTP/1.1\r\nHost: x\r\n\r\n", Known::InFlight),
    ("a guest that sleeps", b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n", Known::InFlight),
    ("half a body", b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nsome", Known::InFlight),
    ("half a chunk", b"POST /late HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nso", Known::InFlight),
    ("an endless answer that nobody reads", b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n", Known::InFlight),
    (
        "a request behind another",
        b"GET /spin HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        Known::InFlight,
    ),
];

/// The end takes no longer than what the flags say, and its status says whether a request was cut. With either signal; the moments of
/// the start, a second signal and a log that nobody reads have tests of their own.
#[test]
fn a_signal_at_any_moment_ends_it_in_time_and_its_status_says_whether_something_was_cut() {
    takes_longer(PATIENCE);
    let at = |(moment, says, known): (&str, &[u8], Known), signal: Signal| {
        let setup = TestHost::serving("menace").with("--drain-timeout", "1s").with("--header-timeout", "500ms");
        let mut process = setup.with("--deadline", "1h").with("--body-timeout", "1h").spawn();
        let mut client = std::net::TcpStream::connect(process.addr()).expect("the host accepts");
        client.write_all(says).expect("sent");
        block_on(eventually(moment, async || {
            let text = get(process.admin(), "/metrics").await;
            match known {
                Known::Nothing => true,
                Known::Answered => sample(text.text(), "taffrail_http_requests_total", "") >= 1.0,
                Known::InFlight => sample(text.text(), "taffrail_requests_in_flight ", "") == 1.0,
            }
        }));
        let since = std::time::Instant::now();
        process.signal(signal);
        let (status, took) = (process.wait(), since.elapsed());
        // The drain's second and a goodbye's two, on a machine that is busy; without an end it would be an hour.
        assert!(took < Duration::from_secs(20), "{moment}, {signal:?}: {took:?}");
        assert_eq!(status.code(), Some(i32::from(known == Known::InFlight)), "{moment}, {signal:?}: {}", process.log());
    };
    std::thread::scope(|scope| {
        for signal in [Signal::TERM, Signal::INT] {
            scope.spawn(move || MOMENTS.into_iter().for_each(|moment| at(moment, signal)));
        }
    });
}

/// The compiler is stopped, so that it would never end by itself.
#[test]
fn a_signal_while_the_component_is_compiled_ends_host_and_compiler() {
    let functions = (0..2000)
        .map(|_| format!("(func (param i32) (result i32) local.get 0 {})", "i32.const 7 i32.mul ".repeat(100)));
    let component = wat_component_with("", &functions.collect::<String>(), "");
    let mut process = Process::spawn(Setup::file(component.path()).command());
    process.wait_for_line("compiling the component");
    let compiler = loop {
        assert!(process.is_running() && !process.log().contains("\"ready\""), "the compiler has not been seen");
        if let Some(compiler) = process.children().first() {
            break *compiler;
        }
    };
    rustix::process::kill_process(compiler, Signal::STOP).expect("it runs");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(2));
    assert!(process.whole_log().contains("error: SIGTERM before the start was complete"));
    let since = std::time::Instant::now();
    let runs = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", compiler.as_raw_nonzero()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    while runs() {
        assert!(since.elapsed() < PATIENCE, "the compiler is left behind");
        std::thread::yield_now();
    }
}

/// A thread that waits for somebody else holds the end for no longer than half a second.
#[test]
fn a_signal_while_a_pipe_is_read_that_nobody_writes_to_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.wasm");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).expect("a pipe");
    let mut process = Process::spawn(Setup::file(&pipe).command());
    process.wait_for_line("\"starting\"");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(2));
    assert!(process.whole_log().contains("SIGTERM before the start was complete"));
}

#[test]
fn signals_that_ask_for_nothing_are_logged_and_ignored() {
    let mut process = TestHost::serving("hello").spawn();
    for (signal, name) in
        [(Signal::HUP, "SIGHUP"), (Signal::QUIT, "SIGQUIT"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")]
    {
        process.signal(signal);
        assert!(process.wait_for_line(name).contains("ignored"));
        assert_eq!(block_on(get(process.addr(), "/ping")).text(), "OK");
        assert_eq!(block_on(get(process.admin(), "/readyz")).status, 200);
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

/// What panics is tokio, over a variable of its own.
#[test]
fn a_panic_is_a_line_of_the_log() {
    let mut command = TestHost::serving("hello").command();
    let output = command.env("TOKIO_WORKER_THREADS", "many").output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), said.lines().count()), (Some(101), 1), "{said}");
    let line: serde_json::Value = serde_json::from_str(&said).expect("a JSON line");
    assert_eq!((line["level"].as_str(), line["thread"].as_str()), (Some("ERROR"), Some("main")), "{said}");
    assert!(line["payload"].as_str().is_some_and(|text| text.contains("TOKIO_WORKER_THREADS")), "{said}");
    assert!(line["location"].as_str().is_some_and(|text| text.contains(".rs:")), "{said}");
}

#[test]
fn flags_can_be_environment_variables() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_taffrail"));
    command
        .arg("serve")
        .env("TAFFRAIL_COMPONENT", component("hello"))
        .env("TAFFRAIL_LISTEN", "127.0.0.1:0")
        .env("TAFFRAIL_ADMIN_LISTEN", "127.0.0.1:0")
        .env("TAFFRAIL_CONFIG", format!("auth-tokens={TOKEN}"))
        .env("TAFFRAIL_HEALTH_PATH", "/up");
    let process = Process::spawn(command);
    let addr = process.addr();
    let app = block_on(ask(Protocol::Http1, addr, "GET", "/app", &[("x-auth-token", TOKEN)]));
    assert_eq!(app.status, 200);
    assert_eq!(block_on(get(addr, "/up")).status, 200);
}

#[test]
fn what_the_guest_prints_is_logged_with_the_request_id() {
    let process = TestHost::serving("print").spawn();
    let answer = block_on(get(process.addr(), "/"));
    assert_eq!(answer.text(), "printed");
    process.wait_for_line("\"served\"");
    process.wait_for_line("without an end");
    let log = process.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a JSON line"))
        .filter(|line| line["target"] == "guest")
        .collect();
    assert!(lines.iter().all(|line| line["request_id"] == answer.header("x-request-id")), "{lines:?}");
    let printed: Vec<(&str, usize)> = lines
        .iter()
        .map(|line| (line["stream"].as_str().expect("a stream"), line["message"].as_str().expect("a line").len()))
        .collect();
    let expected =
        [("stderr", 18), ("stderr", 8192), ("stderr", 8192), ("stderr", 3616), ("stdout", 9), ("stderr", 14)];
    assert_eq!(printed, expected, "{lines:?}");
    assert_eq!(lines[0]["message"], "one line in pieces");
}

#[test]
fn the_token_is_in_no_log_line_no_answer_and_no_metric() {
    let setup = TestHost::serving("hello").with("--config", &format!("auth-tokens={TOKEN}")).with("--log", "trace");
    let mut process = setup.spawn();
    let addr = process.addr();
    let mut elsewhere = Vec::new();
    for headers in [[("x-auth-token", TOKEN)], [("authorization", &format!("Bearer {TOKEN}"))]] {
        assert_eq!(block_on(ask(Protocol::Http1, addr, "GET", "/app", &headers)).status, 200);
        for (method, target) in [("GET", "/nothing"), ("POST", "/app"), ("CONNECT", "/app"), ("GET", "/health")] {
            let answer = block_on(ask(Protocol::Http1, addr, method, target, &headers));
            elsewhere.push((format!("the answer to {method} {target}"), format!("{answer:?}")));
        }
    }
    for path in ["/", "/metrics", "/version"] {
        elsewhere.push((path.to_owned(), block_on(get(process.admin(), path)).text().to_owned()));
    }
    process.signal(Signal::TERM);
    process.wait();
    let log = process.whole_log();
    assert!(log.contains("\"served\"") && !log.contains(TOKEN), "the token is in the log");
    for (place, text) in &elsewhere {
        assert!(!text.is_empty() && !text.contains("^token"), "the token is in {place}");
    }
}
