//! No panic is silent: a line in the log, and a count. A client sees what it would without: a connection that ends.

use std::panic::{self, PanicHookInfo};
use std::thread;

use tracing::subscriber::NoSubscriber;

use super::metrics::host;

/// Installs the hook of the process. Where no log is installed yet, what stands on stderr is what Rust says by default.
pub fn install() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        host::panicked();
        if tracing::dispatcher::get_default(|log| log.is::<NoSubscriber>()) {
            default(info);
        } else {
            log(info);
        }
    }));
}

/// One line: a backtrace would be of the host's own code, which the location names.
fn log(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("no text");
    let location = info.location().map(ToString::to_string);
    let thread = thread::current();
    tracing::error!(
        payload = message,
        location,
        thread = thread.name(),
        "the host panicked, which is a defect: report it"
    );
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The log is this thread's alone, so that other tests panic as ever.
    #[test]
    fn a_panic_is_one_line_and_a_count() {
        let (lines, before) = (Lines::default(), host::panics());
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        install();
        tracing::subscriber::with_default(subscriber, || {
            let ended = panic::catch_unwind(|| panic!("out of\nthe blue"));
            assert!(ended.is_err());
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let fields = &line["fields"];
        assert_eq!((&line["level"], &fields["payload"]), (&"ERROR".into(), &"out of\nthe blue".into()), "{text}");
        assert!(fields["location"].as_str().unwrap().contains("panics.rs:"), "{text}");
        assert!(fields["thread"].as_str().unwrap().contains("a_panic_is_one_line"), "{text}");
        assert!(host::panics() > before);
    }
}
