//! The results for people: Markdown, aligned, so that a terminal and `BENCHMARKS.md` show the same.

use crate::results::{Results, Series, Spread};

/// A column: its heading, and what it says of a series beside its baseline.
type Column = (&'static str, fn(&Series, &Series) -> String);

const THROUGHPUT: [Column; 9] = [
    ("requests/s", |series, _| spread(series.spread("requests_per_second"))),
    ("÷ first", |series, baseline| spread(series.ratio("requests_per_second", baseline))),
    ("MB/s each way", |series, _| spread(series.spread("megabytes_per_second"))),
    ("CPU µs/request", |series, _| spread(series.spread("cpu_us_per_request"))),
    ("÷ first", |series, baseline| spread(series.ratio("cpu_us_per_request", baseline))),
    ("… at half load", |series, _| spread(series.spread("half_cpu_us_per_request"))),
    ("generator's", |series, _| spread(series.spread("generator_cpu_us_per_request"))),
    ("peak RSS, MiB", |series, _| spread(series.spread("peak_rss_mib"))),
    ("failed", |series, _| number(series.sum("failed"))),
];

const LATENCY: [Column; 8] = [
    ("p50 µs", |series, _| spread(series.spread("p50_us"))),
    ("p99 µs", |series, _| spread(series.spread("p99_us"))),
    ("p99.9 µs", |series, _| spread(series.spread("p999_us"))),
    ("half load: requests/s", |series, _| spread(series.spread("half_requests_per_second"))),
    ("p50 µs", |series, _| spread(series.spread("half_p50_us"))),
    ("p99 µs", |series, _| spread(series.spread("half_p99_us"))),
    ("p99.9 µs", |series, _| spread(series.spread("half_p999_us"))),
    ("p99 ÷ first", |series, baseline| spread(series.ratio("half_p99_us", baseline))),
];

const START: [Column; 4] = [
    ("ms", |series, _| spread(series.spread("start_ms"))),
    ("÷ first", |series, baseline| spread(series.ratio("start_ms", baseline))),
    ("CPU ms", |series, _| spread(series.spread("start_cpu_ms"))),
    ("RSS idle, MiB", |series, _| spread(series.spread("idle_rss_mib"))),
];

/// Rates, cost and memory.
pub fn throughput(results: &Results) -> String {
    of_results(results, &THROUGHPUT)
}

/// Latencies at saturation and at half load.
pub fn latency(results: &Results) -> String {
    of_results(results, &LATENCY)
}

/// Cold starts.
pub fn start(results: &Results) -> String {
    of_results(results, &START)
}

fn of_results(results: &Results, columns: &[Column]) -> String {
    if results.0.is_empty() {
        return "Left out of this run.\n".to_owned();
    }
    let first = results.0.first().map_or("first", |series| series.server);
    let mut rows = vec![vec!["workload".to_owned(), "server".to_owned()]];
    rows[0].extend(columns.iter().map(|(heading, _)| heading.replace("first", first)));
    let mut workload = "";
    for series in &results.0 {
        let mut row = vec![if series.workload == workload { String::new() } else { series.workload_title.to_owned() }];
        workload = series.workload;
        row.push(series.server_title.to_owned());
        match (&series.skipped, results.baseline(series)) {
            // The reason in full is below the tables.
            (Some(why), _) => row.push(why.split(':').next().unwrap_or_default().to_owned()),
            (None, baseline) => row.extend(columns.iter().map(|(_, text)| text(series, baseline.unwrap_or(series)))),
        }
        row.resize(rows[0].len(), String::new());
        rows.push(row);
    }
    aligned(&rows)
}

/// Rows as a Markdown table; the first is the heading.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let widest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(widest).collect();
    let line = |row: &[String]| {
        let cells: String = row.iter().zip(&widths).map(|(text, width)| format!(" {text:width$} |")).collect();
        format!("|{cells}\n")
    };
    let rule: String = widths.iter().map(|width| format!("{}|", "-".repeat(width + 2))).collect();
    let mut text = line(&rows[0]) + "|" + &rule + "\n";
    rows[1..].iter().for_each(|row| text.push_str(&line(row)));
    text
}

/// `median (min–max)`.
fn spread(spread: Option<Spread>) -> String {
    let Some(Spread { median, min, max }) = spread else { return "–".to_owned() };
    if min == max {
        return number(median);
    }
    format!("{} ({}–{})", number(median), number(min), number(max))
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 99_950.0 => format!("{:.0}k", value / 1e3),
        size if size >= 9_995.0 => format!("{:.1}k", value / 1e3),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size > 0.0 => format!("{value:.2}"),
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let cases = [(0.0, "0"), (0.333, "0.33"), (9.999, "10.0"), (46.12, "46.1"), (999.6, "1000"), (8_830.0, "8830")];
        for (value, text) in cases.into_iter().chain([(46_120.0, "46.1k"), (175_400.0, "175k")]) {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_table_is_aligned() {
        let row = |cells: &[&str]| cells.iter().map(|cell| cell.to_string()).collect();
        let table = aligned(&[row(&["a", "b"]), row(&["1", "22"])]);
        assert_eq!(table, "| a | b  |\n|---|----|\n| 1 | 22 |\n");
    }
}
