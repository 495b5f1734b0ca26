//! How the values of flags are read. A fault says what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// An address with its port.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address; write IP:PORT, such as 0.0.0.0:8080 or [::]:8080".to_owned())
}

/// A number with its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "is not a duration; write a number with its unit, such as 500ms, 5s or 1m".to_owned())
}

/// A pool of guests is sized by it, so it has a bound: 1,000,000.
pub fn count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("is not a count; write a number from 1 to 1000000".to_owned()),
    }
}

/// A number of bytes, with a unit or without.
pub fn size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "is not a size; write a number with its unit, such as 64KiB, 10MiB or 1GiB".to_owned())
}

/// A size that is held in memory, so it has a bound: 4 GiB, which is also the most that 32-bit Wasm can address.
pub fn memory_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        bytes @ 1..=0x1_0000_0000 => Ok(bytes as usize),
        _ => Err("is out of bounds; write a size from 1B to 4GiB".to_owned()),
    }
}

/// A count, or `None` for `auto`.
pub fn auto_or_count(text: &str) -> Result<Option<u32>, String> {
    match text {
        "auto" => Ok(None),
        _ => count(text).map(Some).map_err(|why| format!("{why}, or auto")),
    }
}

/// A limit of zero would refuse everything.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("would refuse everything; write a duration above zero".to_owned()),
        duration => Ok(duration),
    }
}

/// A network, or a single address.
pub fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse().map(|address: IpAddr| address.into()))
        .map_err(|_| "is not a network; write an address or a CIDR, such as 10.0.0.0/8 or fd00::/8".to_owned())
}

/// A path, or `None` for nothing.
pub fn health_path(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        path if path.starts_with('/') && !path.contains(['?', '#', ' ']) => Ok(Some(path.to_owned())),
        _ => Err("is not a path; write /health, say, or nothing to turn it off".to_owned()),
    }
}

/// A filter in the syntax of `EnvFilter`, with no space round its directives: its parser skips the spaces, cuts the text
/// as though they were not there, and so misreads `warn, taffrail=info` or panics within a longer letter.
pub fn log_filter(text: &str) -> Result<String, String> {
    let filter = text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    env_filter(&filter)
        .map(|_| filter)
        .map_err(|error| format!("is not a log filter ({error}); write a level such as info, or target=level,…"))
}

/// What the log takes. The value of a field is compared as it stands: made into a regular expression, a short one could
/// take all memory.
///
/// # Errors
/// Where it is not a filter.
pub fn env_filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_regex(false).parse(text)
}

#[cfg(test)]
mod tests {
    use super::log_filter;

    #[test]
    fn a_log_filter_may_have_spaces_round_its_directives() {
        assert_eq!(log_filter(" warn, taffrail=info\n").unwrap(), "warn,taffrail=info");
        assert_eq!(log_filter(",\u{c}---\u{9028d}bound\u{9028d}o=").unwrap(), ",---\u{9028d}bound\u{9028d}o=");
        assert!(log_filter("taffrail=loud").is_err());
    }

    #[test]
    fn the_value_of_a_field_is_no_regular_expression() {
        assert_eq!(log_filter("taffrail[request{id=(}]=info").unwrap(), "taffrail[request{id=(}]=info");
    }
}
