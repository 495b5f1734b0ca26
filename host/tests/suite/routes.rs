//! The answer table of the hello component, over real HTTP/1.1 and HTTP/2.

use crate::support::*;

async fn hello() -> TestHost {
    TestHost::serving("hello").with("--config", &format!("auth-tokens={TOKEN}\nsecond")).start().await
}

#[tokio::test]
async fn every_row_of_the_table_over_both_protocols() {
    const GREETING: &str = r#"{"message":"Hello World"}"#;
    const REFUSAL: &str = r#"{"error":"Invalid auth token"}"#;
    let host = hello().await;
    let bearer = format!("Bearer {TOKEN}");
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16, &'a str);
    let rows: &[Row<'_>] = &[
        ("GET", "/app", &[("x-auth-token", TOKEN)], 200, GREETING),
        ("GET", "/app", &[("X-Auth-Token", "second")], 200, GREETING),
        ("GET", "/app?with=query", &[("x-auth-token", TOKEN)], 200, GREETING),
        ("GET", "/app", &[], 403, REFUSAL),
        ("GET", "/app", &[("x-auth-token", "wrong")], 403, REFUSAL),
        ("GET", "/app", &[("x-auth-token", "")], 403, REFUSAL),
        ("GET", "/app", &[("x-auth-token", TOKEN), ("x-auth-token", TOKEN)], 403, REFUSAL),
        ("GET", "/app", &[("authorization", &bearer)], 200, GREETING),
        ("GET", "/app", &[("authorization", &bearer.replace(' ', "   "))], 200, GREETING),
        ("GET", "/app", &[("authorization", "Bearer wrong")], 403, REFUSAL),
        ("GET", "/app", &[("authorization", &bearer), ("x-auth-token", "wrong")], 403, REFUSAL),
        ("GET", "/ping", &[], 200, "OK"),
        ("POST", "/app", &[("x-auth-token", TOKEN)], 405, r#"{"error":"Method not allowed"}"#),
        ("DELETE", "/ping", &[], 405, r#"{"error":"Method not allowed"}"#),
        ("GET", "/", &[], 404, r#"{"error":"Not found"}"#),
        ("GET", "/app/", &[("x-auth-token", TOKEN)], 404, r#"{"error":"Not found"}"#),
    ];
    for protocol in BOTH {
        for (method, target, headers, status, body) in rows {
            let answer = ask(protocol, host.addr, method, target, headers).await;
            let row = format!("{protocol:?} {method} {target} {headers:?}: {answer:?}");
            assert_eq!(answer.status, *status, "{row}");
            assert_eq!(answer.text(), *body, "{row}");
            assert_eq!(answer.header("content-length"), body.len().to_string(), "{row}");
            let content_type = if *body == "OK" { "text/plain; charset=utf-8" } else { "application/json" };
            assert_eq!(answer.header("content-type"), content_type, "{row}");
            assert_eq!(answer.header("allow"), if *status == 405 { "GET, HEAD" } else { "" }, "{row}");
        }
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let host = hello().await;
    for protocol in BOTH {
        for (target, headers) in [("/app", &[("x-auth-token", TOKEN)][..]), ("/app", &[]), ("/ping", &[])] {
            let get = ask(protocol, host.addr, "GET", target, headers).await;
            let head = ask(protocol, host.addr, "HEAD", target, headers).await;
            assert_eq!(head.status, get.status, "{protocol:?} {target}");
            assert_eq!(head.header("content-length"), get.header("content-length"), "{protocol:?} {target}");
            assert_eq!(head.header("content-type"), get.header("content-type"), "{protocol:?} {target}");
            assert!(head.body.is_empty() && !get.body.is_empty(), "{protocol:?} {target}");
        }
    }
}

#[tokio::test]
async fn without_a_configured_token_every_app_is_refused() {
    let host = TestHost::serving("hello").start().await;
    for headers in [&[][..], &[("x-auth-token", "")], &[("x-auth-token", TOKEN)]] {
        assert_eq!(ask(Protocol::Http1, host.addr, "GET", "/app", headers).await.status, 403, "{headers:?}");
    }
    assert_eq!(get(host.addr, "/ping").await.text(), "OK");
}

#[tokio::test]
async fn a_config_directory_wins_over_the_flag_and_loses_one_final_newline() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("auth-tokens"), "from-dir\n\n").unwrap();
    std::fs::write(dir.path().join("windows"), "line\r\n").unwrap();
    std::fs::create_dir(dir.path().join("..2026_data")).unwrap();
    std::fs::write(dir.path().join("..version"), "not a key").unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let setup = TestHost::serving("sandbox")
        .with("--config", "auth-tokens=from-flag")
        .with("--config", "other=kept=whole")
        .with("--config-dir", dir.path().to_str().unwrap());
    let host = setup.start().await;
    let report = get(host.addr, "/").await;
    let seen: Vec<&str> = report.text().lines().filter(|line| line.starts_with("config ")).collect();
    assert_eq!(seen.len(), 3, "{seen:?}");
    for line in [r#"config auth-tokens: "from-dir\n""#, r#"config other: "kept=whole""#, r#"config windows: "line""#] {
        assert!(seen.contains(&line), "{line} in {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_keep_alive_clients_are_all_answered() {
    let host = hello().await;
    let clients: Vec<_> = (0..1000)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(Protocol::Http1, host.addr).await;
                for _ in 0..5 {
                    let answer = client.send(request("GET", host.addr, "/app", &[("x-auth-token", TOKEN)])).await;
                    assert_eq!(answer.expect("an answer").status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("all five answers");
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let host = hello().await;
    for protocol in BOTH {
        let answer = ask(protocol, host.addr, "GET", "/ping", &[("x-request-id", "from-the-client:42")]).await;
        assert_eq!(answer.header("x-request-id"), "from-the-client:42");
        let long = "x".repeat(129);
        for not_sane in ["", "with space", "quote\"", &long] {
            let answer = ask(protocol, host.addr, "GET", "/ping", &[("x-request-id", not_sane)]).await;
            let id = uuid::Uuid::parse_str(answer.header("x-request-id")).expect("a UUID");
            assert_eq!(id.get_version_num(), 7, "{not_sane:?}");
        }
        let twice = [("x-request-id", "one"), ("x-request-id", "two")];
        assert_ne!(ask(protocol, host.addr, "GET", "/ping", &twice).await.header("x-request-id"), "one");
        assert_ne!(ask(protocol, host.addr, "GET", "/health", &[]).await.header("x-request-id"), "");
    }
}
