//! What operators see: the log, metrics, and traces.

pub(crate) mod log_filter;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod otlp;
pub(crate) mod panics;
pub(crate) mod rate_limit;
pub(crate) mod spans;
pub(crate) mod stderr;
