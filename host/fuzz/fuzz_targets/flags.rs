//! Flags of any shape: a configuration within bounds, or faults that name themselves. Never a panic.
#![no_main]

use clap::Parser;
use libfuzzer_sys::fuzz_target;

include!("sources.rs");

fuzz_target!(|text: &str| {
    let arguments = ["serve", "x.wasm"].into_iter().chain(text.split('\n'));
    let Ok(parsed) = Serve::try_parse_from(arguments) else { return };
    match parsed.flags.check() {
        Ok(checked) => {
            assert!(!checked.limits.deadline.is_zero() && checked.limits.max_headers > 0);
            assert!(checked.limits.max_in_flight.is_none_or(|count| count > 0));
            let (limits, outbound) = (checked.limits, checked.guest.outbound.limits);
            let durations = [
                checked.drain_delay,
                checked.drain_timeout,
                limits.deadline,
                limits.header_timeout,
                limits.idle_timeout,
                limits.body_timeout,
                limits.write_timeout,
                checked.guest.reuse.idle,
                outbound.connect_timeout,
                outbound.first_byte_timeout,
                outbound.between_bytes_timeout,
            ];
            assert!(durations.iter().all(|duration| duration.as_secs() <= 31_557_600), "{durations:?}");
        }
        Err(faults) => assert!(faults.to_string().contains("TAFFRAIL_")),
    }
});
