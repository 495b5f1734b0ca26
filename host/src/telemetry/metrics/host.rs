//! What befalls the process as a whole, before there is a component and beside it: counted for the process, not for a host.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;

static PANICS: AtomicU64 = AtomicU64::new(0);
static LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// A thread of the host panicked.
pub(crate) fn panicked() {
    PANICS.fetch_add(1, Relaxed);
}

/// Panics so far.
#[cfg(test)]
pub(crate) fn panics() -> u64 {
    PANICS.load(Relaxed)
}

/// Lines of the log found no room, or could not be written.
pub(crate) fn log_lines_dropped(lines: u64) {
    LOG_LINES_DROPPED.fetch_add(lines, Relaxed);
}

/// Lines of the log that were dropped so far.
pub(crate) fn log_lines_lost() -> u64 {
    LOG_LINES_DROPPED.load(Relaxed)
}

/// The counters of the process.
#[derive(Debug)]
pub(crate) struct HostCounters;

impl Collector for HostCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut counter = |name, help, count: &AtomicU64| {
            let counter = ConstCounter::new(count.load(Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        let dropped =
            "Lines of the log that were dropped, because nobody took them in time or they could not be written";
        counter("log_lines_dropped", dropped, &LOG_LINES_DROPPED)?;
        counter("host_panics", "Panics of the host; each is a defect and has a line in the log", &PANICS)
    }
}
