//! A file of a config directory, whatever is in it: its text without one final newline, or a warning. Never a panic.
#![no_main]

use clap::Parser;
use libfuzzer_sys::fuzz_target;

include!("sources.rs");

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("key"), data).expect("written");
    let arguments = ["serve", "x.wasm", "--config-dir"].map(Into::into);
    let arguments = arguments.into_iter().chain([dir.path().as_os_str().to_owned()]);
    match (std::str::from_utf8(data), Serve::parse_from(arguments).flags.check()) {
        (Ok(text), Ok(checked)) => {
            let value = &checked.guest.config.0["key"];
            let removed = text.strip_prefix(value.as_str()).expect("the start of the file");
            assert!(["", "\n", "\r\n"].contains(&removed));
        }
        (Err(_), Ok(checked)) => {
            assert!(checked.guest.config.0.is_empty());
            assert!(checked.warnings[0].contains("key: is not UTF-8 text"));
        }
        (text, checked) => panic!("{text:?} became {checked:?}"),
    }
});
