//! The figures of the status page, read from what a scraper would get: the two cannot differ.

/// The figures of the status page.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Requests by status and reason, most first.
    pub(crate) outcomes: Vec<(u16, String, u64)>,
    /// Half of the requests took no longer, in seconds, as far as the buckets tell.
    pub(crate) median: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99: Option<f64>,
    /// Requests with the component.
    pub(crate) in_flight: i64,
    /// How many may be.
    pub(crate) limit: i64,
}

/// Reads them from an exposition in OpenMetrics; `in_flight` and `limit` are the gauges.
pub(crate) fn summarize(text: &str, in_flight: i64, limit: i64) -> Summary {
    let label = |labels: &str, name: &str| {
        let value = labels.split_once(&format!("{name}=\""))?.1;
        Some(value.split('"').next().unwrap_or_default().to_owned())
    };
    let mut summary = Summary { in_flight, limit, ..Summary::default() };
    let mut buckets = Vec::new();
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        if let Some(labels) = series.strip_prefix("taffrail_http_requests_total{") {
            let code = label(labels, "code").and_then(|code| code.parse().ok());
            if let (Some(code), Some(reason), Ok(count)) = (code, label(labels, "reason"), value.parse()) {
                summary.outcomes.push((code, reason, count));
            }
        } else if let Some(labels) = series.strip_prefix("taffrail_http_request_duration_seconds_bucket{") {
            let bound = label(labels, "le").map(|bound| bound.parse().unwrap_or(f64::INFINITY));
            buckets.extend(bound.zip(value.parse::<f64>().ok()));
        }
    }
    summary.outcomes.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
    summary.median = quantile(&buckets, 0.5);
    summary.p99 = quantile(&buckets, 0.99);
    summary
}

/// As Prometheus' `histogram_quantile`: linear within a bucket; beyond the last bound, that bound.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let rank = buckets.last()?.1 * share;
    let (mut below, mut before) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank && *count > 0.0 {
            let within = (rank - before) / (count - before).max(1.0);
            return Some(if bound.is_finite() { below + (bound - below) * within } else { below });
        }
        (below, before) = (*bound, *count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_prometheus_own() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
        let buckets = [(1.0, 50.0), (2.0, 90.0), (4.0, 100.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.5), Some(1.0));
        assert_eq!(quantile(&buckets, 0.7), Some(1.5));
        assert_eq!(quantile(&buckets, 0.99), Some(3.8));
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 10.0)], 0.5), Some(1.0));
    }
}
