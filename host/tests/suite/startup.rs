//! A start that cannot succeed says why in one message, and the traffic port is never bound.

use std::process::{Command, Output};

use crate::support::*;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taffrail")).args(arguments).output().expect("the binary runs")
}

/// Starts with a file that cannot be served and returns the message.
fn refusal(file: &std::path::Path) -> String {
    let output = Setup::file(file).with("--log", "off").command().output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let message = String::from_utf8(output.stderr).expect("text");
    assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
    message
}

/// Neither killed nor silent: whatever the file is, and however long it goes on.
#[test]
fn a_file_that_memory_cannot_hold_gets_a_sentence() {
    let Some(group) = MemoryGroup::of(96 << 20) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let sparse = |name: &str, gibibytes: u64| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).and_then(|file| file.set_len(gibibytes << 30)).expect("a sparse file");
        path
    };
    for file in [sparse("large.wasm", 1), sparse("large.cwasm", 3), "/dev/zero".into()] {
        let inner = Setup::file(&file).with("--log", "off").command();
        let output = group.run(&inner).output().expect("the binary runs");
        let message = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("is too large for this machine") && message.lines().count() == 1, "{message}");
    }
}

#[test]
fn each_wrong_file_gets_one_sentence_that_says_what_to_do() {
    let module = wat::parse_str("(module)").unwrap();
    let no_handler = wat::parse_str(
        r#"(component (component $c) (instance $i (instantiate $c)) (export "my:own/thing" (instance $i)))"#,
    );
    let exporting = |interface: &str| {
        let text = format!(
            r#"(component (component $c) (instance $i (instantiate $c)) (export "{interface}" (instance $i)))"#
        );
        wat::parse_str(text).expect("a component")
    };
    let hello = std::fs::read(component("hello")).expect("a component");
    let cases: &[(&[u8], &str)] = &[
        (b"", "the file is empty"),
        (b"#!/bin/sh", "it is not Wasm at all"),
        (&module, "it is a core Wasm module; build it for wasm32-wasip2"),
        (b"\0asm\x0c\0\x01\0", "a component of an unknown binary version"),
        (b"\0asm", "it is damaged or cut off"),
        (b"\0asm\x0d\0\x01\0\xff", "cannot be compiled"),
        (b"\x7fELF....", "native or precompiled (ELF) file that `taffrail compile` did not write"),
        (
            &no_handler.unwrap(),
            "it exports my:own/thing; it must export wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.x",
        ),
        (&wat::parse_str("(component)").unwrap(), "it exports nothing"),
        (b"\x1f\x8b\x08", "it is compressed (gzip, zstd or zip): unpack it"),
        (b"\x28\xb5\x2f\xfd", "it is compressed"),
        (b"PK\x03\x04", "it is compressed"),
        (b"(component)", "it is Wasm in text form: turn it into binary with `wasm-tools parse`"),
        (b"<!doctype html>", "as a failed download leaves it: fetch the .wasm file again"),
        (br#"{"schemaVersion":2}"#, "perhaps an image's manifest"),
        (&exporting("wasi:cli/run@0.2.0"), "it is a command, which is run once: build a library"),
        (&exporting("wasi:http/handler@0.4.0"), "it exports wasi:http/handler@0.4.0; the host serves 0.3.x: rebuild"),
        (&exporting("wasi:http/handler@0.3.0-rc-2026-01-06"), "the host serves 0.3.x: rebuild it against that"),
        (&exporting("wasi:http/handler@0.3.0"), "was built against another definition of an interface"),
        (
            &exporting("wasi:http/incoming-handler@0.2.0-rc-2024-01-16"),
            "the host serves 0.2.x: rebuild it against that",
        ),
        (&exporting("wasi:http/incoming-handler@0.1.0"), "the host serves 0.2.x: rebuild it against that"),
        (&hello[..hello.len() / 2], "cannot be compiled"),
    ];
    for (bytes, sentence) in cases {
        let file = wasm_file(bytes);
        let message = refusal(file.path());
        assert!(message.contains(sentence) && message.contains(file.path().to_str().unwrap()), "{sentence}: {message}");
    }
    let missing = refusal(std::path::Path::new("no/such/file.wasm"));
    assert!(missing.contains("cannot read the component no/such/file.wasm: No such file"), "{missing}");
    let folder = refusal(std::path::Path::new("."));
    assert!(folder.contains("cannot read the component .: Is a directory"), "{folder}");
}

/// A patch version only adds: what was built for a later one is served, as long as it uses nothing new.
#[tokio::test]
async fn a_component_of_a_later_patch_version_is_served() {
    let hello = std::fs::read(component("hello")).expect("a component");
    let (version, later) = if *IS_0_3 { (&b"@0.3.0"[..], &b"@0.3.9"[..]) } else { (&b"@0.2.12"[..], &b"@0.2.99"[..]) };
    let mut bytes = hello.clone();
    for at in 0..bytes.len() - version.len() {
        if bytes[at..].starts_with(version) {
            bytes[at..at + later.len()].copy_from_slice(later);
        }
    }
    assert_ne!(bytes, hello, "the version is in it");
    let host = Setup::file(wasm_file(&bytes).path()).start().await;
    assert_eq!(get(host.addr, "/ping").await.text(), "OK");
    let world = get(host.admin, "/version").await.json()["component"]["world"].as_str().expect("a world").to_owned();
    assert!(world.ends_with(std::str::from_utf8(later).expect("text")), "{world}");
}

#[test]
fn an_import_that_is_not_offered_is_named_with_the_nearest_one() {
    for (import, sentence) in [
        (
            "wasi:http/type@0.2.0",
            "it imports wasi:http/type@0.2.0; the nearest that the host offers is wasi:http/types@0.2.x and 0.3.x",
        ),
        ("wasi:htp/types@0.2.0", "the nearest that the host offers is wasi:http/types@0.2.x and 0.3.x"),
        ("wasi:config/stores@0.2.0-rc.1", "the nearest that the host offers is wasi:config/store@0.2.0-rc.1"),
        ("wasi:cli/environment@0.4.0", "the host offers wasi:cli/environment@0.2.x and 0.3.x: rebuild it against that"),
        ("wasi:http/client@0.3.0-rc-2026-01-06", "the host offers wasi:http/client@0.3.x: rebuild it against that"),
        (
            "wasi:keyvalue/store@0.2.0-draft",
            "it imports wasi:keyvalue/store@0.2.0-draft, which the host does not offer: build it without",
        ),
        ("wasi:cli/environment@0.2.0-rc-2023-11-10", "the host offers wasi:cli/environment@0.2.x"),
        ("wasi:config/store@0.2.0-draft", "the host offers wasi:config/store@0.2.0-rc.1"),
    ] {
        let file = wat_component(&format!(r#"(import "{import}" (instance))"#));
        let message = refusal(file.path());
        assert!(message.contains(sentence), "{import}: {message}");
    }
    let of_another_type = wat_component(r#"(import "wasi:cli/exit@0.2.0" (instance (export "leave" (func))))"#);
    let message = refusal(of_another_type.path());
    assert!(message.contains("another definition of an interface") && message.contains("wasi:cli/exit"), "{message}");
}

/// What it starts with is more than an instance may have: the start says which flag to raise.
#[test]
fn a_component_that_starts_with_too_much_memory_is_not_served() {
    let file = wat_component("(core module $large (memory 4096)) (core instance (instantiate $large))");
    let message = refusal_of_many_lines(file.path());
    assert!(message.contains("--guest-memory"), "{message}");
}

#[test]
fn a_component_that_cannot_be_instantiated_is_not_served() {
    let file =
        wat_component("(core module $bad (func $start unreachable) (start $start)) (core instance (instantiate $bad))");
    let message = refusal_of_many_lines(file.path());
    assert!(message.contains("its instantiation fails") && message.contains("unreachable"), "{message}");
}

fn refusal_of_many_lines(file: &std::path::Path) -> String {
    let output = Setup::file(file).with("--log", "off").command().output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let hello = component("hello");
    for (flag, other) in [("--listen", "--admin-listen"), ("--admin-listen", "--listen")] {
        let output = run(&["serve", hello.to_str().unwrap(), flag, &address, other, "127.0.0.1:0", "--log", "off"]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(&format!("cannot listen on {address} ({flag}): Address already in use")), "{message}");
    }
}

#[test]
fn every_bad_flag_is_named_at_once() {
    let output = run(&[
        "serve",
        "x.wasm",
        "--listen",
        "nowhere",
        "--admin-listen",
        "127.0.0.1",
        "--config",
        "no-equals-sign",
        "--config-dir",
        "no/such/dir",
        "--health-path",
        "health",
        "--drain-delay",
        "5",
        "--drain-timeout",
        "soon",
        "--log",
        "taffrail=loud",
        "--log-format",
        "xml",
        "--max-in-flight",
        "0",
        "--max-body",
        "big",
    ]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    for fault in [
        "--listen (TAFFRAIL_LISTEN): \"nowhere\" is not an address",
        "--admin-listen (TAFFRAIL_ADMIN_LISTEN): ",
        "--config (TAFFRAIL_CONFIG): a value has no key; write KEY=VALUE",
        "--config-dir (TAFFRAIL_CONFIG_DIR): no/such/dir: cannot be listed",
        "--health-path (TAFFRAIL_HEALTH_PATH): ",
        "--drain-delay (TAFFRAIL_DRAIN_DELAY): \"5\" is not a duration",
        "--drain-timeout (TAFFRAIL_DRAIN_TIMEOUT): ",
        "--log (TAFFRAIL_LOG): ",
        "--log-format (TAFFRAIL_LOG_FORMAT): ",
        "--max-in-flight (TAFFRAIL_MAX_IN_FLIGHT): ",
        "--max-body (TAFFRAIL_MAX_BODY): ",
    ] {
        assert!(message.contains(fault), "{fault:?} in {message}");
    }
    assert!(!message.contains("no-equals-sign"), "a value of --config may be a secret: {message}");
}

/// As the kubelet mounts a Secret, with a keystore among its keys.
#[tokio::test]
async fn a_config_file_that_is_no_text_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("..2026_11_25");
    let link = |to: &str, at: std::path::PathBuf| std::os::unix::fs::symlink(to, at);
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("auth-tokens"), "\u{feff}one\r\ntwo\r\n").unwrap();
    std::fs::write(data.join("keystore.p12"), [0xff, 0xfe]).unwrap();
    link("..2026_11_25", dir.path().join("..data")).unwrap();
    link("..loop", dir.path().join("..loop")).unwrap();
    for key in ["auth-tokens", "keystore.p12", "gone"] {
        link(&format!("..data/{key}"), dir.path().join(key)).unwrap();
    }
    let process = TestHost::serving("hello").with("--config-dir", dir.path().to_str().unwrap()).spawn();
    for warned in ["keystore.p12: is not UTF-8 text", "gone: leads nowhere"] {
        let line = process.wait_for_line(warned);
        assert!(line.contains("WARN"), "{line}");
    }
    for token in ["one", "two"] {
        let answer = ask(Protocol::Http1, process.addr(), "GET", "/app", &[("x-auth-token", token)]).await;
        assert_eq!(answer.status, 200, "{token}");
    }
    let broken = ask(Protocol::Http1, process.addr(), "GET", "/app", &[("x-auth-token", "wrong")]).await;
    assert_eq!(broken.status, 403);
}

#[test]
fn help_names_every_flag_with_its_variable() {
    let output = run(&["serve", "--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    // One that repeats has dots, one that is on or off has no value; `-h, --help` alone has a short form, and no variable.
    let flags: Vec<&str> = help.lines().filter_map(|line| line.trim().strip_prefix("--")).collect();
    assert!(flags.len() >= 10, "{help}");
    for flag in flags {
        let name = flag.split([' ', '.', '[']).next().expect("a name");
        let variable = format!("[env: TAFFRAIL_{}", name.replace('-', "_").to_uppercase());
        // With its value, or without where that may be a secret.
        let named = ["=", "]"].iter().any(|end| help.contains(&format!("{variable}{end}")));
        assert!(named, "{variable} is missing in the help: {help}");
    }
}
