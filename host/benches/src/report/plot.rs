//! The results as a picture: requests a second as a ratio to the baseline, a group of bars for each workload.

use std::fmt::Write as _;

use crate::report::table::number;
use crate::results::{Results, Series, Spread};

const WIDTH: f64 = 860.0;
/// Where the bars begin; left of it are the servers.
const LEFT: f64 = 230.0;
/// Room for the numbers right of the longest bar.
const RIGHT: f64 = 150.0;
const BAR: f64 = 16.0;
const GAP: f64 = 34.0;

/// Draws them. A line across a bar's end goes from the lowest round to the highest.
pub fn svg(results: &Results, title: &str) -> String {
    let ratio = |series: &Series| series.ratio("requests_per_second", results.baseline(series)?);
    let highest = results.0.iter().filter_map(ratio).map(|ratio| ratio.max).fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / highest;
    let (mut body, mut y, mut workload) = (String::new(), 40.0, "");
    for series in &results.0 {
        if series.workload != workload {
            (workload, y) = (series.workload, y + GAP);
            text(&mut body, 8.0, y - 8.0, "font-weight=\"bold\"", series.workload_title);
        }
        let line = y + BAR - 4.0;
        text(&mut body, LEFT - 8.0, line, "text-anchor=\"end\"", series.server_title);
        match (ratio(series), series.spread("requests_per_second")) {
            (Some(ratio), Some(rate)) => {
                bar(&mut body, y, colour(series.server), ratio, scale);
                let numbers = format!("{} · {}/s", number(ratio.median), number(rate.median));
                text(&mut body, LEFT + ratio.max * scale + 8.0, line, "", &numbers);
            }
            _ => {
                let why = series.skipped.as_deref().and_then(|why| why.split(':').next()).unwrap_or("not measured");
                text(&mut body, LEFT, line, "fill=\"#777\"", why);
            }
        }
        y += BAR;
    }
    let mut heading = String::new();
    text(&mut heading, 8.0, 24.0, "font-size=\"15\" font-weight=\"bold\"", title);
    let height = y + 20.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{heading}{body}</svg>\n"
    )
}

fn bar(body: &mut String, y: f64, fill: &str, ratio: Spread, scale: f64) {
    let (width, height, middle) = (ratio.median * scale, BAR - 3.0, y + BAR / 2.0 - 1.0);
    let (from, to) = (LEFT + ratio.min * scale, LEFT + ratio.max * scale);
    let _ = writeln!(body, r#"<rect x="{LEFT}" y="{y}" width="{width:.1}" height="{height}" fill="{fill}"/>"#);
    let _ = writeln!(body, r##"<path d="M{from:.1} {middle}H{to:.1}" stroke="#222"/>"##);
}

fn text(body: &mut String, x: f64, y: f64, attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(body, r#"<text x="{x:.0}" y="{y:.0}" {attributes}>{text}</text>"#);
}

fn colour(server: &str) -> &'static str {
    match server.split('-').next() {
        Some("native") => "#7f8c9a",
        Some("taffrail") => "#2a6fb0",
        Some("wasmtime") => "#c77d2e",
        _ => "#8a5a9e",
    }
}
