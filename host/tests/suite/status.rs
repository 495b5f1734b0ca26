//! The status page for people, as a browser shows it.

use std::process::{Command, Stdio};

use crate::support::*;

#[tokio::test]
async fn the_page_says_what_is_served_and_what_fails() {
    let host = Setup::file(&component("fail")).start().await;
    let empty = get(host.admin, "/").await;
    assert_eq!((empty.status.as_u16(), empty.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(empty.text().contains("No request yet."), "{}", empty.text());
    get(host.addr, "/").await;
    let trapped = get(host.addr, "/trap").await;
    let page = get(host.admin, "/").await;
    let version = get(host.admin, "/version").await.json();
    let id = trapped.header("x-request-id");
    let file = component("fail");
    for text in [
        file.file_name().unwrap().to_str().unwrap(),
        "ready",
        version["component"]["digest"].as_str().unwrap(),
        "guest_trapped",
        "GET /trap",
        id,
    ] {
        assert!(page.text().contains(text), "{text} in {}", page.text());
    }
    assert!(!page.text().contains("{{"), "every placeholder is filled: {}", page.text());
    for outside in ["http://", "https://", "src=", "href="] {
        assert!(!page.text().contains(outside), "the page loads nothing: {outside}");
    }
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
}

#[tokio::test]
async fn what_a_client_chose_is_text_on_the_page() {
    let host = TestHost::serving("fail").start().await;
    raw(host.addr, b"GET /'\"&{{content}} HTTP/1.1\r\nConnection: close\r\n\r\n").await; // no Host: it fails
    let page = get(host.admin, "/").await;
    assert!(page.text().contains("GET /&#39;&quot;&amp;&#123;&#123;content}}"), "{}", page.text());
}

/// Chromium as root in a container: without its sandbox, and without calling home.
fn chromium(folder: &std::path::Path) -> Command {
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", folder.display()))
        .stderr(Stdio::null());
    command
}

/// Screenshots at phone and desktop width under load go to `target/status`, to be looked at.
#[test]
fn a_real_browser_shows_it_at_phone_and_desktop_width_under_load() {
    if Command::new("chromium").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return not_run("chromium is missing: apt-get install chromium");
    }
    let process = TestHost::serving("menace").with("--deadline", "1s").with("--access-log", "off").spawn();
    let (addr, admin) = (process.addr(), process.admin());
    let shots = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target folder").join("status");
    std::fs::create_dir_all(&shots).expect("a folder");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let load = runtime.spawn(async move {
        for round in 0_u32.. {
            let target = ["/", "/", "/", "/", "/trap", "/", "/", "/large-header", "/", "/silent"][round as usize % 10];
            get(addr, target).await;
            tokio::time::sleep(std::time::Duration::from_millis(u64::from(round / 100 % 10))).await;
        }
    });
    let url = format!("http://{admin}/");
    let shown = async || get(admin, "/").await.text().contains("guest_no_response");
    runtime.block_on(eventually("the page shows the failure", shown));
    for (name, size) in [("phone", "390,1400"), ("desktop", "1280,1100")] {
        let folder = tempfile::tempdir().expect("a folder");
        let shot = shots.join(format!("{name}.png"));
        let _ = std::fs::remove_file(&shot);
        let taken = chromium(folder.path())
            .arg(format!("--screenshot={}", shot.display()))
            .arg(format!("--window-size={size}"))
            .arg(&url)
            .stdout(Stdio::null())
            .status();
        assert!(taken.expect("chromium runs").success());
        assert!(std::fs::metadata(&shot).is_ok_and(|file| file.len() > 10_000), "a picture with something on it");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let dumped = chromium(folder.path()).args(["--dump-dom", &url]).output().expect("chromium runs");
    let dom = String::from_utf8_lossy(&dumped.stdout);
    for text in
        ["requests a second", "p99 latency", "guest_trapped", "guest_header_too_large", "Last failures", "<polyline"]
    {
        assert!(dom.contains(text), "{text} in {dom}");
    }
    load.abort();
}
