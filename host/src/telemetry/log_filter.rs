//! How `--log` is read.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// A filter in the syntax of `EnvFilter`, with no space round its directives: its parser skips the spaces, cuts the text
/// as though they were not there, and so misreads `warn, taffrail=info` or panics within a longer letter.
pub(crate) fn log_filter(text: &str) -> Result<String, String> {
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
pub(crate) fn env_filter(text: &str) -> Result<EnvFilter, ParseError> {
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
