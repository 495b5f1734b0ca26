//! The sizes of what is shipped.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::report::table::{aligned, number};
use crate::servers::artifacts::Artifacts;
use crate::servers::server::{Component, Program, Wasi};

/// The sizes of what is shipped, as far as it was built.
pub fn measure(artifacts: &Artifacts) -> Vec<(String, Option<u64>)> {
    let size = |path: &Path| fs::metadata(path).ok().map(|file| file.len());
    let program = |program| artifacts.program(program).ok().and_then(|file| size(&file));
    let mut sizes = vec![
        ("taffrail".to_owned(), program(Program::Taffrail)),
        ("taffrail, for precompiled components alone".to_owned(), size(&artifacts.without_compiler())),
        ("wasmtime (the features of host/benches/install)".to_owned(), program(Program::Wasmtime)),
        ("hello.wasm".to_owned(), size(&artifacts.component(Component::Hello, Wasi::V02))),
        ("hello.cwasm (taffrail)".to_owned(), size(&artifacts.precompiled(Program::Taffrail))),
        ("hello.cwasm (wasmtime)".to_owned(), size(&artifacts.precompiled(Program::Wasmtime))),
    ];
    match layers(&artifacts.image()) {
        Some(layers) => sizes.extend(layers),
        None => sizes.push(("image layers".to_owned(), None)),
    }
    sizes
}

/// The layers that an image's manifest names, compressed.
fn layers(manifest: &Path) -> Option<Vec<(String, Option<u64>)>> {
    let manifest: Value = serde_json::from_str(&fs::read_to_string(manifest).ok()?).ok()?;
    let size = |(number, layer): (usize, &Value)| {
        (format!("image layer {}, as it is pulled", number + 1), layer["size"].as_u64())
    };
    Some(manifest["layers"].as_array()?.iter().enumerate().map(size).collect())
}

/// The sizes as a table.
pub fn table(sizes: &[(String, Option<u64>)]) -> String {
    let mut rows = vec![vec!["file".to_owned(), "MiB".to_owned()]];
    for (name, bytes) in sizes {
        let size = bytes.map_or_else(|| "not built yet".to_owned(), |bytes| number(bytes as f64 / (1024.0 * 1024.0)));
        rows.push(vec![name.clone(), size]);
    }
    aligned(&rows)
}
