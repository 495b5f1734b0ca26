//! The goals that a release is judged by.

use crate::load::workload::TYPICAL;
use crate::report::table::{aligned, number};
use crate::results::{Results, Spread};

/// A row: its title, the figure, the workload, the server, the server that it is divided by, the limit.
type Goal = (&'static str, &'static str, &'static str, &'static str, Option<&'static str>, Limit);

#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

use Limit::{AtLeast, AtMost};

const RATE: &str = "requests_per_second";
const START: &str = "start_ms";
const REUSE: &str = "taffrail-reuse";
const PRECOMPILED: &str = "taffrail-precompiled";

const GOALS: [Goal; 13] = [
    ("fresh 0.2 ÷ native", RATE, TYPICAL, "taffrail", Some("native"), AtLeast(0.45)),
    ("fresh 0.2 ÷ wasmtime serve", RATE, TYPICAL, "taffrail", Some("wasmtime"), AtLeast(8.0)),
    ("reuse 0.2 ÷ native", RATE, TYPICAL, REUSE, Some("native"), AtLeast(0.7)),
    ("reuse 0.2 ÷ wasmtime serve with reuse", RATE, TYPICAL, REUSE, Some("wasmtime-reuse"), AtLeast(2.0)),
    ("reuse 0.3 ÷ wasmtime serve 0.3", RATE, TYPICAL, "taffrail-03-reuse", Some("wasmtime-03"), AtLeast(2.0)),
    ("p99 at half load ÷ native's", "half_p99_us", TYPICAL, "taffrail", Some("native"), AtMost(2.0)),
    ("10 MiB, MB/s ÷ native", "megabytes_per_second", "stream", "taffrail", Some("native"), AtLeast(0.7)),
    ("start precompiled, ms", START, "start", PRECOMPILED, None, AtMost(15.0)),
    ("start precompiled ÷ wasmtime serve", START, "start", PRECOMPILED, Some("wasmtime-precompiled"), AtMost(1.0)),
    ("RSS idle, MiB", "idle_rss_mib", "start", "taffrail", None, AtMost(20.0)),
    ("RSS idle, precompiled, MiB", "idle_rss_mib", "start", PRECOMPILED, None, AtMost(20.0)),
    ("RSS at 256 connections, MiB", "peak_rss_mib", "app-256", "taffrail", None, AtMost(60.0)),
    ("all off ÷ as shipped", RATE, "telemetry", "all-off", Some("as-shipped"), AtMost(1.05)),
];

/// Every goal beside what was measured; none of them is left out.
pub fn table(all: &[&Results], noisy: bool) -> String {
    let mut rows = vec![["goal", "limit", "measured", ""].map(str::to_owned).to_vec()];
    for goal in &GOALS {
        let measured = all.iter().find_map(|results| measured(results, goal)).map(|spread| spread.median);
        let (limit, met) = match goal.5 {
            AtLeast(least) => (format!("≥ {}", number(least)), measured.map(|value| value >= least)),
            AtMost(most) => (format!("≤ {}", number(most)), measured.map(|value| value <= most)),
        };
        let said = match met {
            Some(_) if noisy => "in doubt: the machine was busy",
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        };
        rows.push(vec![goal.0.to_owned(), limit, measured.map_or("–".to_owned(), number), said.to_owned()]);
    }
    aligned(&rows)
}

fn measured(results: &Results, (_, figure, workload, server, over, _): &Goal) -> Option<Spread> {
    let series = results.find(workload, server)?;
    match over {
        Some(over) => series.ratio(figure, results.find(workload, over)?),
        None => series.spread(figure),
    }
}
