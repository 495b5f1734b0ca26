//! A component that was compiled ahead is served like any other, by the host that it was compiled for alone.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::*;

fn compile(component: &Path, output: &Path) -> Output {
    Command::new(binary()).arg("compile").arg(component).arg("-o").arg(output).output().expect("the binary runs")
}

/// A precompiled hello in a folder of its own.
fn compiled() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hello.cwasm");
    let output = compile(&component("hello"), &file);
    assert!(output.status.success(), "{output:?}");
    (folder, file)
}

/// Serves a file that must not be served, and returns the message.
fn refusal(setup: Setup) -> String {
    let output = setup.with("--log", "off").command().output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// The mark and the hash of the whole are the last 48 bytes of the file; this makes them right again.
fn sealed_again(mut file: Vec<u8>) -> Vec<u8> {
    use sha2::Digest as _;
    let end = file.len() - 48;
    let hash = sha2::Sha256::digest(&file[..end]);
    file[end..end + 32].copy_from_slice(&hash);
    file
}

#[test]
fn it_is_served_under_the_digest_of_its_component() {
    let (folder, file) = compiled();
    let from_wasm = TestHost::serving("hello").spawn();
    let process = Setup::file(&file).flag("--allow-precompiled").spawn();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        assert_eq!(get(process.addr(), "/ping").await.text(), "OK");
        let of = async |process: &Process| get(process.admin(), "/version").await.json()["component"].clone();
        let (ahead, now) = (of(&process).await, of(&from_wasm).await);
        for same in ["digest", "size", "world", "imports"] {
            assert_eq!(ahead[same], now[same], "{same}");
        }
    });
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing unfinished is left");
}

/// For pipelines, and for the host itself, which has another process compile.
#[test]
fn a_dash_is_standard_input_and_output() {
    let (_folder, file) = compiled();
    let wasm = std::fs::File::open(component("hello")).expect("a component");
    let output =
        Command::new(binary()).args(["compile", "-", "-o", "-"]).stdin(wasm).output().expect("the binary runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == std::fs::read(file).expect("a file"), "the same as with names");
}

#[test]
fn it_needs_the_flag() {
    let (_folder, file) = compiled();
    let message = refusal(Setup::file(&file));
    assert!(message.contains("is precompiled; --allow-precompiled serves it, if you trust"), "{message}");
}

#[test]
fn what_is_damaged_is_refused() {
    let (_folder, file) = compiled();
    let whole = std::fs::read(&file).expect("a file");
    for at in [0, 100, whole.len() / 2, whole.len() - 60] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&file, damaged).expect("written");
        let message = refusal(Setup::file(&file).flag("--allow-precompiled"));
        assert!(message.contains("it is damaged; copy it again"), "{at}: {message}");
    }
    std::fs::write(&file, &whole[..whole.len() - 1]).expect("written");
    let message = refusal(Setup::file(&file).flag("--allow-precompiled"));
    assert!(message.contains("that `taffrail compile` did not write"), "{message}");
}

/// Wasmtime's own version stands in the code; here it is another one.
#[test]
fn code_of_another_host_is_refused_or_its_component_is_compiled_again() {
    let (folder, file) = compiled();
    let mut other = std::fs::read(&file).expect("a file");
    let version = b"\x0248"; // its length, and the line that it is of
    let at = (0..other.len()).find(|at| other[*at..].starts_with(version)).expect("the code names Wasmtime's version");
    other[at..at + 3].copy_from_slice(b"\x0247");
    std::fs::write(&file, sealed_again(other)).expect("written");
    let message = refusal(Setup::file(&file).flag("--allow-precompiled"));
    assert!(message.contains("was compiled by another host (0.1.0; this is 0.1.0)"), "{message}");
    assert!(message.contains("run `taffrail compile` of this host again"), "{message}");

    let setup = |fallback: &Path| {
        Setup::file(&file).flag("--allow-precompiled").with("--fallback", &fallback.display().to_string())
    };
    let process = setup(&component("hello")).spawn();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    assert_eq!(runtime.block_on(get(process.addr(), "/ping")).text(), "OK");
    process.wait_for_line("compiling the fallback");
    let message = refusal(setup(&component("echo")));
    assert!(message.contains("is not the component that"), "{message}");
    let message = refusal(setup(&folder.path().join("none.wasm")));
    assert!(message.contains("cannot read the component"), "{message}");
}

#[test]
fn what_cannot_be_served_is_not_compiled() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("out.cwasm");
    let module = wasm_file(&wat::parse_str("(component)").expect("a component"));
    let output = compile(module.path(), &file);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("it exports nothing"), "{said}");
    let output = compile(&component("hello"), &folder.path().join("no/such/folder/x.cwasm"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("cannot write"), "{said}");
    assert!(!file.exists());
}
