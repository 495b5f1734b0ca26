//! The results for people: Markdown, aligned, so that a terminal and `BENCHMARKS.md` show the same.

use crate::results::{Cell, Results, Spread};

/// A column: its heading, and what it says of a cell beside the cell that it is compared with.
type Column = (&'static str, fn(&Cell, &Cell) -> String);

const THROUGHPUT: [Column; 9] = [
    ("requests/s", |cell, _| spread(cell.spread("requests_per_second"))),
    ("÷ first", |cell, base| spread(cell.ratio("requests_per_second", base))),
    ("MB/s each way", |cell, _| spread(cell.spread("megabytes_per_second"))),
    ("CPU µs/request", |cell, _| spread(cell.spread("cpu_us_per_request"))),
    ("÷ first", |cell, base| spread(cell.ratio("cpu_us_per_request", base))),
    ("… at half load", |cell, _| spread(cell.spread("half_cpu_us_per_request"))),
    ("generator's", |cell, _| spread(cell.spread("generator_cpu_us_per_request"))),
    ("peak RSS, MiB", |cell, _| spread(cell.spread("peak_rss_mib"))),
    ("failed", |cell, _| number(cell.sum("failed"))),
];

const LATENCY: [Column; 8] = [
    ("p50 µs", |cell, _| spread(cell.spread("p50_us"))),
    ("p99 µs", |cell, _| spread(cell.spread("p99_us"))),
    ("p99.9 µs", |cell, _| spread(cell.spread("p999_us"))),
    ("half load: requests/s", |cell, _| spread(cell.spread("half_requests_per_second"))),
    ("p50 µs", |cell, _| spread(cell.spread("half_p50_us"))),
    ("p99 µs", |cell, _| spread(cell.spread("half_p99_us"))),
    ("p99.9 µs", |cell, _| spread(cell.spread("half_p999_us"))),
    ("p99 ÷ first", |cell, base| spread(cell.ratio("half_p99_us", base))),
];

const START: [Column; 4] = [
    ("ms", |cell, _| spread(cell.spread("start_ms"))),
    ("÷ first", |cell, base| spread(cell.ratio("start_ms", base))),
    ("CPU ms", |cell, _| spread(cell.spread("start_cpu_ms"))),
    ("RSS idle, MiB", |cell, _| spread(cell.spread("idle_rss_mib"))),
];

/// Rates, cost and memory.
pub fn throughput(results: &Results) -> String {
    of_results(results, &THROUGHPUT)
}

/// Latencies at saturation and at half load.
pub fn latency(results: &Results) -> String {
    of_results(results, &LATENCY)
}

/// Starts.
pub fn start(results: &Results) -> String {
    of_results(results, &START)
}

fn of_results(results: &Results, columns: &[Column]) -> String {
    if results.0.is_empty() {
        return "Left out of this run.\n".to_owned();
    }
    let first = results.0.first().map_or("first", |cell| cell.subject);
    let mut rows = vec![vec!["work".to_owned(), "subject".to_owned()]];
    rows[0].extend(columns.iter().map(|(heading, _)| heading.replace("first", first)));
    let mut work = "";
    for cell in &results.0 {
        let mut row = vec![if cell.work == work { String::new() } else { cell.work_title.to_owned() }];
        work = cell.work;
        row.push(cell.subject_title.to_owned());
        match (&cell.absent, results.base(cell)) {
            // The reason in full is below the tables.
            (Some(why), _) => row.push(why.split(':').next().unwrap_or_default().to_owned()),
            (None, base) => row.extend(columns.iter().map(|(_, text)| text(cell, base.unwrap_or(cell)))),
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
