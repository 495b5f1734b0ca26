//! How the values of flags are read. A fault says what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

/// An address with its port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address; write IP:PORT, such as 0.0.0.0:8080 or [::]:8080".to_owned())
}

/// The longest duration: a year, as `1y` is read. An instant that is too far away is none (the sum would panic), and tokio's
/// timers reach 2.2 years.
const DURATION_MAX: Duration = Duration::from_secs(31_557_600);

/// A number with its unit, at most [`DURATION_MAX`].
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        Ok(_) => Err("is out of bounds; write a duration of at most 1y".to_owned()),
        Err(_) => Err("is not a duration; write a number with its unit, such as 500ms, 5s or 1m".to_owned()),
    }
}

/// A pool of guests is sized by it, so it has a bound: 1,000,000.
pub(crate) fn count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("is not a count; write a number from 1 to 1000000".to_owned()),
    }
}

/// A count as a `usize`, for what sizes something in memory.
pub(crate) fn size_count(text: &str) -> Result<usize, String> {
    count(text).map(|count| count as usize)
}

/// A number of bytes, with a unit or without.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "is not a size; write a number with its unit, such as 64KiB, 10MiB or 1GiB".to_owned())
}

/// A size that is held in memory, so it has a bound: 4 GiB, which is also the most that 32-bit Wasm can address.
pub(crate) fn memory_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        bytes @ 1..=0x1_0000_0000 => Ok(bytes as usize),
        _ => Err("is out of bounds; write a size from 1B to 4GiB".to_owned()),
    }
}

/// A count, or `None` for `auto`.
pub(crate) fn auto_or_count(text: &str) -> Result<Option<u32>, String> {
    match text {
        "auto" => Ok(None),
        _ => count(text).map(Some).map_err(|why| format!("{why}, or auto")),
    }
}

/// A limit of zero would refuse everything.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("would refuse everything; write a duration above zero".to_owned()),
        duration => Ok(duration),
    }
}

/// A network, or a single address.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse().map(|address: IpAddr| address.into()))
        .map_err(|_| "is not a network; write an address or a CIDR, such as 10.0.0.0/8 or fd00::/8".to_owned())
}

/// A path, or `None` for nothing.
pub(crate) fn health_path(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        path if path.starts_with('/') && !path.contains(['?', '#', ' ']) => Ok(Some(path.to_owned())),
        _ => Err("is not a path; write /health, say, or nothing to turn it off".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_at_most_a_year() {
        assert_eq!(duration("1y"), Ok(DURATION_MAX));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for text in ["1y 1ns", "299999999999y", "18446744073709551615s"] {
            let refused = duration(text).unwrap_err();
            assert!(refused.contains("at most 1y"), "{text}: {refused}");
            assert_eq!(positive_duration(text), Err(refused));
        }
        assert!(duration("999999999999999999999999y").is_err(), "more than a number holds");
    }
}
