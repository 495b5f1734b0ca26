//! What an operator sees: metrics that agree with what the clients saw, with bounded series, and a log that says whose
//! fault it was.

use std::process::{Command, Stdio};

use crate::support::*;

/// The value of a sample by its start, such as `taffrail_http_requests_total{…,reason="ok"`; the sum where several match, and 0 where
/// none does. One without labels ("name ") must be there: a 0 of a metric that nobody has says nothing.
pub fn sample(text: &str, start: &str, label: &str) -> f64 {
    let is_there = text.lines().any(|line| line.starts_with(start));
    assert!(is_there || !start.ends_with(' '), "there is no metric {start}: {text}");
    let matching = text.lines().filter(|line| line.starts_with(start) && line.contains(label));
    matching.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
}

pub async fn scrape(host: &TestHost) -> String {
    get(host.admin, "/metrics").await.text().to_owned()
}

#[tokio::test]
async fn requests_are_counted_by_status_reason_and_component() {
    let host = TestHost::serving("fail").with("--instance-reuse", "1").start().await;
    for (target, count) in [("/", 5), ("/nothing", 3), ("/trap", 2), ("/silent", 1)] {
        for _ in 0..count {
            get(host.addr, target).await;
        }
    }
    raw(host.addr, b"GET / HTTP/1.1\r\n\r\n").await;
    get(host.addr, "/health").await; // the host's own: it says nothing of the component, and is not counted
    let text = scrape(&host).await;
    let version = get(host.admin, "/version").await.json();
    let digest = version["component"]["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
    let component = format!("component=\"{}\"", &digest[..12]);
    let requests = |label: &str| {
        assert!(text.lines().filter(|line| line.contains(label)).all(|line| line.contains(&component)), "{text}");
        sample(&text, "taffrail_http_requests_total{", label)
    };
    assert_eq!(requests("code=\"200\",reason=\"ok\""), 5.0, "{text}");
    assert_eq!(requests("code=\"404\",reason=\"ok\""), 3.0, "{text}");
    assert_eq!(requests("code=\"500\",reason=\"guest_trapped\""), 2.0, "{text}");
    assert_eq!(requests("code=\"502\",reason=\"guest_no_response\""), 1.0, "{text}");
    assert_eq!(requests("code=\"400\",reason=\"client_bad_request\""), 1.0, "{text}");
    assert_eq!(sample(&text, "taffrail_http_request_duration_seconds_count", ""), 12.0, "{text}");
    assert_eq!(sample(&text, "taffrail_time_to_first_byte_seconds_count", ""), 12.0, "{text}");
    assert_eq!(sample(&text, "taffrail_guest_instantiate_seconds_count", ""), 11.0, "{text}");
    assert!(sample(&text, "taffrail_guest_cpu_seconds_total", "") > 0.0, "{text}");
    assert_eq!(sample(&text, "taffrail_component_info", &digest), 1.0, "{text}");
    assert_eq!(sample(&text, "taffrail_build_info", env!("CARGO_PKG_VERSION")), 1.0, "{text}");
    assert!(sample(&text, "process_resident_memory_bytes", "") > 1e6, "{text}");
    assert!(sample(&text, "process_start_time_seconds", "") > 1.7e9, "{text}");
    assert!(sample(&text, "process_open_fds", "") > 3.0, "{text}");
}

#[tokio::test]
async fn what_is_in_flight_is_a_gauge_and_a_share_of_the_limit() {
    let host = TestHost::serving("echo").with("--max-in-flight", "4").start().await;
    let mut client = Client::connect(Protocol::Http1, host.addr).await;
    let (sender, body) = open_body();
    let response = client.open(request_with("POST", host.addr, "/", &[], body)).await.expect("a head");
    let text = scrape(&host).await;
    assert_eq!(sample(&text, "taffrail_requests_in_flight ", ""), 1.0, "{text}");
    assert_eq!(sample(&text, "taffrail_requests_in_flight_limit ", ""), 4.0, "{text}");
    assert_eq!(sample(&text, "taffrail_saturation_ratio ", ""), 0.25, "{text}");
    assert_eq!(sample(&text, "taffrail_connections_open ", ""), 1.0, "{text}");
    drop(sender);
    whole(response).await.expect("a whole answer");
    drop(client);
    let open = async || sample(&scrape(&host).await, "taffrail_connections_open ", "");
    eventually("no connection is open", async || open().await == 0.0).await;
    assert_eq!(sample(&scrape(&host).await, "taffrail_requests_in_flight ", ""), 0.0);
}

#[tokio::test]
async fn what_is_shed_cut_or_refused_is_counted() {
    let host = TestHost::serving("gather").with("--max-in-flight", "1").start().await;
    let mut client = Client::connect(Protocol::Http1, host.addr).await;
    let (mut sender, body) = open_body();
    let held = tokio::spawn(async move { client.send(request_with("POST", host.addr, "/", &[], body)).await });
    sender.send_data("held".into()).await.expect("the host reads: the guest runs");
    let mut shed = 0;
    eventually("three are shed", async || {
        shed += u32::from(get(host.addr, "/").await.status == 503);
        shed == 3
    })
    .await;
    drop(sender);
    held.await.expect("no panic").expect("an answer");
    assert_eq!(sample(&scrape(&host).await, "taffrail_requests_shed_total", ""), 3.0);
    let sandbox = TestHost::serving("sandbox").start().await;
    get(sandbox.addr, "/").await;
    let text = scrape(&sandbox).await;
    assert_eq!(sample(&text, "taffrail_outbound_requests_total", "reason=\"refused\""), 1.0, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_paths_hosts_and_methods_leave_the_series_as_they_are() {
    let host = TestHost::serving("hello").with("--instance-reuse", "1").start().await;
    let mut client = Client::connect(Protocol::Http2, host.addr).await;
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    for method in ["GET", "POST"] {
        client.send(request(method, host.addr, "/nothing", &[])).await.expect("an answer");
    }
    let before = series(&scrape(&host).await);
    for n in 0..10_000 {
        let (method, name) = (format!("M{}", n % 1000), format!("host-{n}.example"));
        let mut request =
            request(&method, host.addr, &format!("/path/{n}?q={n}"), &[("x-request-id", &format!("id-{n}"))]);
        *request.uri_mut() = format!("http://{name}/path/{n}?q={n}").parse().expect("a URI");
        assert_eq!(client.send(request).await.expect("an answer").status, 404);
    }
    let text = scrape(&host).await;
    assert_eq!(series(&text), before, "{text}");
    assert!(!text.contains("path/") && !text.contains("example") && !text.contains("M9"), "{text}");
}

#[tokio::test]
async fn the_format_follows_what_the_scraper_asks_for() {
    let host = TestHost::serving("hello").start().await;
    get(host.addr, "/ping").await;
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let open = ask(Protocol::Http1, host.admin, "GET", "/metrics", &[("accept", accept)]).await;
    assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.text().ends_with("# EOF\n") && open.text().contains("# TYPE taffrail_http_requests counter\n"));
    let text = ask(Protocol::Http1, host.admin, "GET", "/metrics", &[]).await;
    assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(!text.text().contains("# EOF") && text.text().contains("# TYPE taffrail_http_requests_total counter\n"));
    assert!(text.text().contains("taffrail_http_requests_total{component="), "{}", text.text());
}

/// A tool that CI must have, and that a developer may lack.
fn tool(name: &str) -> Option<Command> {
    if Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
        return Some(Command::new(name));
    }
    not_run(&format!("{name} is missing: apt-get install prometheus"));
    None
}

#[tokio::test]
async fn promtool_has_nothing_to_object_to() {
    use std::io::Write as _;
    let Some(mut promtool) = tool("promtool") else { return };
    let host = TestHost::serving("fail").start().await;
    for target in ["/", "/trap"] {
        get(host.addr, target).await;
    }
    let text = scrape(&host).await;
    let child = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("promtool runs");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// A real Prometheus scrapes the real binary; the queries of the page of metrics must say what the test's own client counted.
#[test]
fn a_real_prometheus_answers_the_readmes_queries_with_what_the_client_counted() {
    let Some(mut prometheus) = tool("prometheus") else { return };
    let process = TestHost::serving("fail").with("--access-log", "off").with("--max-in-flight", "8").spawn();
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs: [{{ job_name: t, static_configs: [{{ targets: ['{}'] }}] }}]\n",
        process.admin()
    );
    std::fs::write(folder.path().join("p.yml"), config).expect("written");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let server: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
    let child = prometheus
        .arg(format!("--config.file={}", folder.path().join("p.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address={server}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus runs");
    struct Stop(std::process::Child);
    impl Drop for Stop {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let _stop = Stop(child);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let query = async |promql: &str| -> Option<f64> {
            let encoded: String = promql.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let answer = get(server, &format!("/api/v1/query?query={encoded}")).await.json();
            answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
        };
        let ready = async || match tokio::net::TcpStream::connect(server).await {
            Ok(_) => get(server, "/-/ready").await.status == 200,
            Err(_) => false,
        };
        eventually("Prometheus is ready", ready).await;
        eventually("Prometheus has scraped", async || query("up").await == Some(1.0)).await;
        // 5 rounds, a second each, so that a rate has something to measure: 60 % fine, 30 % the guest's fault, 10 % the client's.
        let (mut good, mut bad, mut theirs) = (0.0, 0.0, 0.0);
        get(process.addr(), "/").await;
        get(process.addr(), "/trap").await;
        raw(process.addr(), b"GET / HTTP/1.1\r\n\r\n").await;
        let seen = "sum(taffrail_http_requests_total)";
        eventually("the first three are scraped", async || query(seen).await == Some(3.0)).await;
        for round in 1..=5 {
            for _ in 0..12 {
                good += f64::from(get(process.addr(), "/").await.status.as_u16() == 200);
            }
            for _ in 0..6 {
                bad += f64::from(get(process.addr(), "/trap").await.status.as_u16() == 500);
            }
            for _ in 0..2 {
                theirs += f64::from(raw(process.addr(), b"GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
            }
            let sent = 3.0 + f64::from(round) * 20.0;
            eventually("all that were sent are scraped", async || query(seen).await == Some(sent)).await;
        }
        assert_eq!((good, bad, theirs), (60.0, 30.0, 10.0), "what the client counted");
        let page = include_str!("../../../docs/operators/metrics.md");
        for (question, expected, within) in [
            ("guest's share of failures", bad / (good + bad + theirs), 0.05),
            ("client's share", theirs / (good + bad + theirs), 0.05),
            ("host's share of failures", 0.0, 0.0),
            ("saturation", 0.0, 0.0),
        ] {
            let row = page.lines().find(|line| line.contains(&format!("| {question} |"))).expect("a row of the page");
            let promql = row.split('`').nth(1).expect("a query").replace("5m", "1m");
            let value = query(&promql).await.unwrap_or_else(|| panic!("{question}: {promql} has no value"));
            assert!((value - expected).abs() <= within, "{question}: {value}, expected {expected}: {promql}");
        }
        for question in ["requests a second", "p99 latency"] {
            let row = page.lines().find(|line| line.contains(&format!("| {question} |"))).expect("a row of the page");
            let promql = row.split('`').nth(1).expect("a query").replace("5m", "1m");
            let value = query(&promql).await.unwrap_or_else(|| panic!("{question}: {promql} has no value"));
            assert!(value > 0.0 && value < 1000.0, "{question}: {value}: {promql}");
        }
    });
}

#[test]
fn the_access_log_is_all_errors_off_or_a_rate() {
    let lines = |which: &str, targets: &[&str]| -> Vec<serde_json::Value> {
        let mut process = TestHost::serving("fail").with("--access-log", which).spawn();
        let addr = process.addr();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            for target in targets {
                get(addr, target).await;
            }
        });
        process.signal(rustix::process::Signal::TERM);
        process.wait();
        let log = process.whole_log();
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a JSON line"));
        lines.filter(|line| line["target"] == "access").collect()
    };
    let all = lines("all", &["/?secret=query", "/trap"]);
    assert_eq!(all.len(), 2);
    let line = &all[0];
    assert_eq!(
        (line["method"].as_str(), line["path"].as_str(), line["status"].as_u64()),
        (Some("GET"), Some("/"), Some(404))
    );
    for field in
        ["seconds", "first_byte", "bytes", "received", "request_id", "trace_id", "client", "component", "reason"]
    {
        assert!(!line[field].is_null(), "{field} in {line}");
    }
    assert!(!line.to_string().contains("secret"), "no query in the log: {line}");
    let errors = lines("errors", &["/", "/nothing", "/trap", "/silent"]);
    let reasons: Vec<&str> = errors.iter().filter_map(|line| line["reason"].as_str()).collect();
    assert_eq!(reasons, ["guest_trapped", "guest_no_response"]);
    assert_eq!(lines("off", &["/", "/trap"]).len(), 0);
    assert_eq!(lines("1/s", &["/"; 1]).len(), 1);
}

#[test]
fn a_guest_that_prints_too_much_is_cut_short_with_a_count() {
    let process = TestHost::serving("print").with("--guest-log-rate", "2").with("--access-log", "off").spawn();
    let addr = process.addr();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(get(addr, "/"));
    let said = || process.log().lines().find(|line| line.contains("--guest-log-rate")).map(str::to_owned);
    runtime.block_on(eventually("the log says how many lines were dropped", async || {
        get(addr, "/").await;
        said().is_some()
    }));
    let line: serde_json::Value = serde_json::from_str(&said().expect("a line")).expect("a JSON line");
    assert!(line["dropped"].as_u64() >= Some(4), "{line}");
}
