//! The guests: built once by the run itself, and compiled once for the binary under test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use sha2::{Digest as _, Sha256};

use super::process::binary;
use super::watchdog::{building, watch};

/// Whether the guests of this run are those of WASI 0.3. `make test` runs the suite over both.
pub static IS_0_3: LazyLock<bool> = LazyLock::new(|| match std::env::var("TAFFRAIL_TEST_WASI").as_deref() {
    Ok("0.3") => true,
    Ok("0.2") | Err(_) => false,
    Ok(other) => panic!("TAFFRAIL_TEST_WASI is 0.2 or 0.3, not {other}"),
});

/// Components, built once by the run itself. Returns their folder.
fn build(packages: &[&[&str]]) -> PathBuf {
    building(|| {
        for package in packages {
            let built = Command::new(env!("CARGO"))
                .args(["build", "--locked", "--release", "--target", "wasm32-wasip2"])
                .args(*package)
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .expect("cargo runs");
            assert!(built.success(), "the test components do not build; is the target there? Try `make setup`");
        }
    });
    target().join("wasm32-wasip2/release")
}

/// Cargo's folder of what is built.
pub fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target folder")
}

/// The file of a component: `hello`, or a guest by its name.
pub fn component(name: &str) -> PathBuf {
    static COMPONENTS: LazyLock<PathBuf> =
        LazyLock::new(|| build(&[&["-p", "guests", "--examples"], &["-p", "hello"]]));
    watch();
    match name {
        guest if *IS_0_3 => component03(guest),
        "hello" => COMPONENTS.join("hello.wasm"),
        guest => COMPONENTS.join(format!("examples/{guest}.wasm")),
    }
}

/// The same for WASI 0.3, whichever the run is over.
pub fn component03(name: &str) -> PathBuf {
    static COMPONENTS: LazyLock<PathBuf> = LazyLock::new(|| build(&[&["-p", "guests03", "--examples"]]));
    watch();
    COMPONENTS.join(format!("examples/{name}03.wasm"))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What code is compiled by and for: the hash of the binary under test, and of what `/proc/cpuinfo` says the CPU can do.
fn compiler() -> &'static str {
    static COMPILER: LazyLock<String> = LazyLock::new(|| {
        let compiler = std::fs::read(binary()).expect("the binary under test");
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let can =
            cpu.lines().find(|line| line.starts_with("flags") || line.starts_with("Features")).unwrap_or_default();
        digest(format!("{} {can}", digest(&compiler)).as_bytes())
    });
    &COMPILER
}

/// The same component compiled by `taffrail compile` of the binary under test: once, for all hosts of this run and of those after
/// it, for as long as neither component nor binary has changed. The host checks its hash and reports its component's digest.
pub fn compiled(component: &Path) -> PathBuf {
    type Once = Arc<OnceLock<PathBuf>>;
    static COMPILED: Mutex<BTreeMap<PathBuf, Once>> = Mutex::new(BTreeMap::new());
    watch();
    let once = COMPILED.lock().expect("nothing panics here").entry(component.to_owned()).or_default().clone();
    once.get_or_init(|| {
        let bytes = std::fs::read(component).unwrap_or_else(|error| panic!("{}: {error}", component.display()));
        let folder = cache().join(digest(&bytes));
        let name = Path::new(component.file_name().expect("a file's name")).with_extension("cwasm");
        let file = folder.join(&name);
        if !file.is_file() {
            std::fs::create_dir_all(&folder).expect("a folder");
            // Another run may do the same: each in a folder of its own, and the file is there as a whole or not at all.
            let own = tempfile::tempdir_in(&folder).expect("a folder");
            let made = own.path().join(&name);
            let output = Command::new(binary()).arg("compile").arg(component).arg("--output").arg(&made).output();
            let output = output.expect("the binary runs");
            assert!(output.status.success(), "{}: {output:?}", component.display());
            std::fs::rename(&made, &file).expect("the same file system");
        }
        file
    })
    .clone()
}

/// The folder of what the binary under test has compiled. Those of binaries that are long gone are removed.
fn cache() -> &'static Path {
    const KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
    static CACHE: LazyLock<PathBuf> = LazyLock::new(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        let own = all.join(compiler());
        std::fs::create_dir_all(&own).expect("a folder");
        for other in std::fs::read_dir(all).expect("a folder").flatten().filter(|other| other.path() != own) {
            let modified = other.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > KEPT)) {
                let _ = std::fs::remove_dir_all(other.path());
            }
        }
        own
    });
    &CACHE
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
    watch();
    let file = tempfile::Builder::new().suffix(".wasm").tempfile().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    file
}
