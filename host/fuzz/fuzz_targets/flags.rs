//! Flags of any shape: a configuration within bounds, or faults that name themselves. Never a panic.
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

fuzz_target!(|text: &str| {
    let arguments = ["taffrail", "serve", "x.wasm"].into_iter().chain(text.split('\n'));
    let Ok(parsed) = config::CommandLine::try_parse_from(arguments) else { return };
    let config::Command::Serve(flags) = parsed.command else { return };
    match flags.check() {
        Ok(checked) => {
            assert!(!checked.limits.deadline.is_zero() && checked.limits.max_headers > 0);
            assert!(checked.limits.max_in_flight.is_none_or(|count| count > 0));
        }
        Err(faults) => assert!(faults.to_string().contains("TAFFRAIL_")),
    }
});
