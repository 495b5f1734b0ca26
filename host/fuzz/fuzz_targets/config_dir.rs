//! A file of a config directory, whatever is in it: its text without one final newline, or a fault. Never a panic.
#![no_main]

use clap::Parser;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the host uses more of it")]
#[path = "../../src/allowlist.rs"]
mod allowlist;
#[allow(dead_code, reason = "the host uses more of it")]
#[path = "../../src/config/mod.rs"]
mod config;
#[allow(dead_code, reason = "the host uses more of it")]
#[path = "../../src/settings.rs"]
mod settings;
#[path = "../../src/values.rs"]
mod values;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("key"), data).expect("written");
    let arguments = ["taffrail", "serve", "x.wasm", "--config-dir"].map(Into::into);
    let arguments = arguments.into_iter().chain([dir.path().as_os_str().to_owned()]);
    let config::Command::Serve(flags) = config::CommandLine::parse_from(arguments).command else { return };
    match (std::str::from_utf8(data), flags.check()) {
        (Ok(text), Ok(checked)) => {
            let value = &checked.guest.config.0["key"];
            let removed = text.strip_prefix(value.as_str()).expect("the start of the file");
            assert!(["", "\n", "\r\n"].contains(&removed));
        }
        (Err(_), Err(faults)) => assert!(faults.to_string().contains("is not UTF-8 text")),
        (text, checked) => panic!("{text:?} became {checked:?}"),
    }
});
