//! Prometheus text 0.0.4, for scrapers that do not ask for OpenMetrics.

use std::fmt::Write as _;

/// The same exposition in Prometheus text 0.0.4, which names a counter with its `_total`.
pub(crate) fn from_open_metrics(open: &str) -> String {
    let mut counters = Vec::new();
    for line in open.lines() {
        counters.extend(line.strip_prefix("# TYPE ").and_then(|line| line.strip_suffix(" counter")));
    }
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => continue,
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(&name) => {
                let _ = writeln!(text, "# {kind} {name}_total {rest}");
            }
            _ => {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}
