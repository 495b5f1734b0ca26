//! The log is written beside the traffic: who reads it, or does not, holds up nobody.

use std::io::{Read as _, pipe};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::support::*;

/// A path that makes a line of the log 4 KiB long.
const PATH: usize = 4000;

/// The real binary with a log that the test need not read. It ends with the test.
struct Host {
    child: Child,
    addr: SocketAddr,
    admin: SocketAddr,
}

impl Host {
    /// Waits until it is ready, which its log may not be able to say: so its ports are chosen here, of an address that no other
    /// test takes ports of.
    async fn start(stderr: Stdio) -> Self {
        let free = [(); 2].map(|()| TcpListener::bind("127.77.0.1:0").expect("a free port"));
        let [addr, admin] = free.each_ref().map(|port| port.local_addr().expect("an address"));
        drop(free);
        let mut command = Command::new(binary());
        command.arg("serve").arg(component("hello")).args(["--listen", &addr.to_string()]);
        command.args(["--admin-listen", &admin.to_string()]).stderr(stderr).stdout(Stdio::null());
        let child = command.spawn().expect("the binary runs");
        drop(command); // and with it our end of the log
        let host = Self { child, addr, admin };
        let since = Instant::now();
        while TcpStream::connect(admin).await.is_err() || get(admin, "/readyz").await.status != 200 {
            assert!(since.elapsed() < PATIENCE, "it is not ready");
            tokio::task::yield_now().await;
        }
        host
    }

    async fn dropped(&self) -> u64 {
        let text = get(self.admin, "/metrics").await.text().to_owned();
        let value = text.lines().find_map(|line| line.strip_prefix("taffrail_log_lines_dropped_total "));
        value.unwrap_or_else(|| panic!("no count: {text}")).parse().expect("a number")
    }

    /// All of them are answered.
    async fn answer(&self, requests: usize) {
        let mut client = Client::connect(Protocol::Http1, self.addr).await;
        let path = format!("/{}", "x".repeat(PATH));
        for _ in 0..requests {
            let answer = tokio::time::timeout(PATIENCE, client.send(request("GET", self.addr, &path, &[]))).await;
            assert_eq!(answer.expect("in time").expect("an answer").status, 404);
        }
    }

    async fn answer_until_lines_are_dropped(&self) {
        let since = Instant::now();
        while self.dropped().await == 0 {
            assert!(since.elapsed() < PATIENCE, "no line is dropped");
            self.answer(100).await;
        }
        self.answer(100).await;
    }

    fn ends_cleanly(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let since = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            assert!(since.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_traffic_nor_drain() {
    let (mut reader, writer) = pipe().expect("a pipe");
    let host = Host::start(writer.into()).await;
    host.answer_until_lines_are_dropped().await;
    host.ends_cleanly();
    let mut log = String::new();
    reader.read_to_string(&mut log).expect("text");
    let lines: Vec<&str> = log.lines().collect();
    let (_, whole) = lines.split_last().expect("lines"); // the process ended within the last one
    assert!(whole.iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
    assert!(whole.len() > 10, "{log}");
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_costs_no_answer() {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let host = Host::start(writer.into()).await;
    host.answer_until_lines_are_dropped().await;
    host.ends_cleanly();
}

#[tokio::test]
async fn a_log_on_a_full_disk_costs_no_answer() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let host = Host::start(full.into()).await;
    host.answer_until_lines_are_dropped().await;
    host.ends_cleanly();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_chose_is_cut_with_a_mark() {
    let process = TestHost::serving("hello").spawn();
    let (method, path) = ("M".repeat(9_000), "p".repeat(8_999));
    raw(process.addr(), format!("{method} /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
    let line = process.wait_for_line("(cut: ");
    assert!(line.contains("(cut: 9000 bytes in all)\",\"path\":\"/pp") && line.len() < 6_000, "{line}");
    assert_eq!(line.matches("(cut: 9000 bytes in all)").count(), 2, "{line}");
}

#[test]
fn no_userinfo_of_a_url_is_logged() {
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:sesame@127.0.0.1:9/")];
    let mut process = TestHost::serving("hello").spawn_with(&endpoint);
    assert!(process.wait_for_line("exporting traces").contains("http://…@127.0.0.1:9/"));
    process.signal(Signal::TERM);
    process.wait();
    assert!(!process.whole_log().contains("sesame"));
    let mut command = TestHost::serving("hello").with("--allow-outbound", "https://user:sesame@example.com").command();
    let said = String::from_utf8(command.output().expect("it runs").stderr).expect("text");
    assert!(said.contains("https://…@example.com") && !said.contains("sesame"), "{said}");
}
