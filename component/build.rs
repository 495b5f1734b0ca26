//! Lays out `wit/deps`, the WASI packages that `wit/world.wit` names, and `wit/wasi03`, those of WASI 0.3 for the tests'
//! guests. Both are taken from the crates that this workspace pins anyway, so that a component is built against exactly the
//! WIT that the host implements.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, error::Error, fs, io};

/// The stack of the hello component, in bytes: far more than its few shallow calls take. rust-lld's default is 1 MiB, which
/// every fresh instance would pay for.
const STACK: u32 = 64 * 1024;

/// Which crate ships WIT packages, where in it they lie, and where they go.
const SOURCES: &[(&str, &str, &str)] = &[
    ("wasmtime-wasi-http", "wit/deps", "wit/deps"),
    ("wasmtime-wasi-config", "wit/deps", "wit/deps"),
    ("wasmtime-wasi-http", "src/p3/wit", "wit/wasi03"),
    ("wasmtime-wasi-config", "wit/deps", "wit/wasi03/deps"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = manifest_dir.ancestors().find(|dir| dir.join("Cargo.lock").is_file());
    let root = root.ok_or("no Cargo.lock above this crate: build inside the workspace")?;

    if env::var("CARGO_CFG_TARGET_FAMILY")? == "wasm" && env::var("CARGO_PKG_NAME")? == "hello" {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size={STACK}");
    }
    for watched in ["Cargo.lock", "wit", "component/build.rs"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let crates = crate_folders(root)?;
    for (name, from, to) in SOURCES {
        let folder = crates.iter().find(|(krate, _)| krate == name);
        let (_, folder) = folder.ok_or_else(|| format!("Cargo.lock pins no crate {name}"))?;
        mirror(&folder.join(from), &root.join(to))?;
    }
    Ok(())
}

/// Name and folder of every crate that Cargo.lock pins. `--locked`: a build never changes the lock.
fn crate_folders(root: &Path) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    let output = Command::new(env::var("CARGO")?)
        .args(["metadata", "--locked", "--format-version=1", "--filter-platform", &env::var("HOST")?])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    Ok(packages
        .iter()
        .filter_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?);
            Some((package["name"].as_str()?.to_owned(), manifest.parent()?.to_owned()))
        })
        .collect())
}

/// Copies a folder. A file that is already the same stays untouched, and a changed one appears whole at once, because
/// two build scripts (the component's and the test guests') may run at the same time.
fn mirror(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            mirror(&entry.path(), &target)?;
            continue;
        }
        let bytes = fs::read(entry.path())?;
        if fs::read(&target).ok().as_ref() != Some(&bytes) {
            let partial = to.join(format!(".{}.{}", entry.file_name().display(), std::process::id()));
            fs::write(&partial, bytes)?;
            fs::rename(partial, target)?;
        }
    }
    Ok(())
}
