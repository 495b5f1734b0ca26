//! The status page for people: what `/metrics` says, readable, on one self-contained page.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::error::Fault;
use crate::lifecycle::Lifecycle;
use crate::telemetry::metrics::{Metrics, Summary};

const PAGE: &str = include_str!("status.html");

/// One sample a second, so the curve shows two minutes.
const SAMPLES: usize = 120;

/// Seconds over which the rate is taken that stands as a number.
const RATE_SECONDS: usize = 10;

/// Remembers how many requests there were, second by second.
#[derive(Debug)]
pub(crate) struct Status {
    started: Instant,
    totals: Mutex<VecDeque<f64>>,
}

impl Default for Status {
    fn default() -> Self {
        Self { started: Instant::now(), totals: Mutex::default() }
    }
}

impl Status {
    /// Takes the sample of this second.
    pub(crate) fn sample(&self, metrics: &Metrics) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        if totals.len() > SAMPLES {
            totals.pop_front();
        }
        totals.push_back(metrics.total() as f64);
    }

    /// The page, as HTML. `component` is not known while it is compiled.
    pub(crate) fn page(&self, lifecycle: &Lifecycle, component: Option<(&serde_json::Value, &Metrics)>) -> String {
        let readiness = lifecycle.readiness();
        let (name, digest, content) = match component {
            None => {
                ("starting", "", "<section><p class=\"none\">The component is not loaded yet.</p></section>".to_owned())
            }
            Some((version, metrics)) => {
                let component = &version["component"];
                let file = component["file"].as_str().unwrap_or_default();
                let name = file.rsplit('/').next().unwrap_or_default();
                (name, component["digest"].as_str().unwrap_or_default(), self.content(version, metrics))
            }
        };
        PAGE.replace("{{name}}", &escape(name))
            .replace("{{phase}}", readiness.err().unwrap_or("ready"))
            .replace("{{phase_class}}", if readiness.is_ok() { "ready" } else { "" })
            .replace("{{digest}}", &escape(digest))
            .replace("{{content}}", &content)
    }

    fn content(&self, version: &serde_json::Value, metrics: &Metrics) -> String {
        let summary = metrics.summary();
        let rates = self.rates();
        let recent = &rates[rates.len().saturating_sub(RATE_SECONDS)..];
        let rate = (!recent.is_empty()).then(|| recent.iter().sum::<f64>() / recent.len() as f64);
        let failed: u64 =
            summary.outcomes.iter().filter(|(_, reason, _)| is_server_fault(reason)).map(|(.., count)| count).sum();
        let total: u64 = summary.outcomes.iter().map(|(.., count)| count).sum();
        let share = summary.in_flight as f64 / summary.limit.max(1) as f64 * 100.0;

        let mut html = String::from("<div class=\"cards\">");
        let mut card = |value: String, label: &str, more: &str| {
            let _ = write!(html, "<div class=\"card\"><b>{value}</b><span>{label}</span>{more}</div>");
        };
        card(rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}")), "requests a second", "");
        card(milliseconds(summary.median), "median latency", "");
        card(milliseconds(summary.p99), "p99 latency", "");
        let bar = format!("<div class=\"bar\"><i style=\"width:{:.1}%\"></i></div>", share.clamp(0.0, 100.0));
        card(format!("{} / {}", summary.in_flight, summary.limit), "in flight", &bar);
        card(format!("{:.2} %", failed as f64 / total.max(1) as f64 * 100.0), "failed, not the client's fault", "");
        card(duration(self.started.elapsed().as_secs()), "up", "");
        html.push_str("</div>");

        let _ = write!(html, "<section><h2>Requests a second, two minutes</h2>{}</section>", curve(&rates));
        outcomes(&mut html, &summary, total);
        failures(&mut html, metrics);
        let host = version["host"].as_str().unwrap_or_default();
        let world = version["component"]["world"].as_str().unwrap_or_default();
        let _ =
            write!(html, "<section><h2>About</h2><code>taffrail {} · {}</code></section>", escape(host), escape(world));
        html
    }

    fn rates(&self) -> Vec<f64> {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.iter().zip(totals.iter().skip(1)).map(|(before, after)| after - before).collect()
    }
}

fn outcomes(html: &mut String, summary: &Summary, total: u64) {
    html.push_str("<section><h2>Outcomes</h2>");
    if summary.outcomes.is_empty() {
        html.push_str("<p class=\"none\">No request yet.</p></section>");
        return;
    }
    html.push_str(
        "<table><tr><th>status</th><th>reason</th><th class=\"n\">requests</th><th class=\"n\">share</th></tr>",
    );
    for (code, reason, count) in &summary.outcomes {
        let (class, share) = (fault(reason), *count as f64 / total.max(1) as f64 * 100.0);
        let _ = write!(
            html,
            "<tr><td>{code}</td><td class=\"{class}\">{reason}</td><td class=\"n\">{count}</td><td class=\"n\">{share:.2} %</td></tr>"
        );
    }
    html.push_str("</table></section>");
}

fn failures(html: &mut String, metrics: &Metrics) {
    html.push_str("<section><h2>Last failures</h2>");
    let failures = metrics.last_failures();
    if failures.is_empty() {
        html.push_str("<p class=\"none\">None.</p></section>");
        return;
    }
    html.push_str("<table><tr><th>ago</th><th>reason</th><th>request</th><th>request id</th></tr>");
    for failure in failures.iter().rev() {
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"{}\">{}</td><td>{} {}</td><td><code>{}</code></td></tr>",
            duration(failure.at.elapsed().as_secs()),
            fault(failure.reason),
            failure.reason,
            escape(failure.method.as_str()),
            escape(&failure.path.chars().take(48).collect::<String>()),
            escape(&failure.request_id)
        );
    }
    html.push_str("</table></section>");
}

fn is_server_fault(reason: &str) -> bool {
    matches!(Fault::of(reason), Some(Fault::Guest | Fault::Host))
}

/// The CSS class of a reason: whose fault it is.
fn fault(reason: &str) -> &'static str {
    Fault::of(reason).map_or("ok", Fault::name)
}

fn curve(rates: &[f64]) -> String {
    let highest = rates.iter().copied().fold(1.0, f64::max);
    let from = SAMPLES - rates.len().min(SAMPLES);
    let mut points = String::new();
    for (at, rate) in rates.iter().enumerate() {
        let _ = write!(points, "{},{:.1} ", from + at, 62.0 - rate / highest * 60.0);
    }
    format!("<svg viewBox=\"0 0 {SAMPLES} 64\" preserveAspectRatio=\"none\"><polyline points=\"{points}\"/></svg>")
}

fn milliseconds(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".to_owned(),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Text that a client chose, in HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '{' => escaped.push_str("&#123;"), // the page's own placeholders
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_client_chose_is_markup_or_a_placeholder() {
        assert_eq!(escape("<b a='\"'>&{{x}}"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;&#123;&#123;x}}");
    }

    #[test]
    fn durations_are_short() {
        let shown: Vec<String> = [0, 59, 60, 3599, 3661, 90_061].into_iter().map(duration).collect();
        assert_eq!(shown, ["0 s", "59 s", "1 min", "59 min", "1 h 1 min", "1 d 1 h"]);
    }
}
