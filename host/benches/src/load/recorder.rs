//! Latencies and failures of requests, as they come in.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What a group of clients has seen.
pub struct Recorder {
    /// Of expected responses, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Requests without the expected response.
    pub failed: u64,
    /// Why the first of them failed.
    pub first_error: Option<String>,
}

impl Recorder {
    /// An empty one.
    ///
    /// # Errors
    /// None in practice: its bounds are constants.
    pub fn new() -> anyhow::Result<Self> {
        let minute = 60_000_000_000; // nanoseconds; longer ones count as that
        Ok(Self { latency: Histogram::new_with_bounds(100, minute, 3)?, failed: 0, first_error: None })
    }

    /// Records a request.
    pub fn record(&mut self, result: anyhow::Result<()>, latency: Duration) {
        match result {
            Ok(()) => self.latency.saturating_record(latency.as_nanos() as u64),
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    /// Adds what other clients have seen.
    ///
    /// # Errors
    /// None in practice: every histogram has the same bounds.
    pub fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        self.latency.add(&other.latency)?;
        self.failed += other.failed;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        Ok(())
    }
}
