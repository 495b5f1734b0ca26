//! What log lines look like: for people on a terminal, JSON elsewhere.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};

use super::log_filter::env_filter;
use super::stderr::Stderr;
use crate::config::LogFormat;

/// The longest cause of a failure that is logged, in bytes; a backtrace of a trap has a few KiB.
pub(crate) const DETAIL_MAX: usize = 16 * 1024;

/// Installs the process-wide log. `filter` was checked by the command line.
///
/// # Errors
/// When a log is installed already.
pub fn install(filter: &str, format: LogFormat, stderr: Stderr) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt().with_env_filter(env_filter(filter)?).with_writer(stderr);
    let json = match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let installed = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_ansi(io::stderr().is_terminal()).try_init()
    };
    installed.map_err(|error| anyhow::anyhow!("install the log: {error}"))
}

/// A text that somebody else chose, within `max` bytes; a longer one is cut, with a mark that says how long it was.
pub(crate) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let kept = &text[..text.floor_char_boundary(max)];
    Cow::Owned(format!("{kept}… (cut: {} bytes in all)", text.len()))
}

/// What is said of a value that somebody else chose, within `max` bytes: it may be megabytes, and no more of it is made than is kept.
pub(crate) fn text_within(said: fmt::Arguments<'_>, max: usize) -> String {
    let mut text = Within { text: String::new(), max };
    match text.write_fmt(said) {
        Ok(()) => text.text,
        Err(fmt::Error) => text.text + "… (cut)",
    }
}

struct Within {
    text: String,
    max: usize,
}

impl fmt::Write for Within {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = self.max.saturating_sub(self.text.len());
        self.text.push_str(&piece[..piece.floor_char_boundary(room)]);
        if piece.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{cut, text_within};

    #[test]
    fn no_more_is_made_of_a_value_than_is_kept() {
        assert_eq!(text_within(format_args!("{:?}", "ab"), 4), "\"ab\"");
        assert_eq!(text_within(format_args!("{:?}", "abc"), 4), "\"abc… (cut)");
        assert_eq!(text_within(format_args!("{:?}", vec!["ä"; 1 << 20]), 3), "[\"… (cut)");
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("größer", 3), "gr… (cut: 8 bytes in all)");
        assert_eq!(cut("", 0), "");
    }
}
