//! What was measured: for each workload and server the figures of every round.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The figures of one round by name. The name ends with the unit.
pub type Figures = BTreeMap<&'static str, f64>;

/// One server at one workload, round by round.
#[derive(Debug)]
pub struct Series {
    pub workload: &'static str,
    pub workload_title: &'static str,
    pub server: &'static str,
    pub server_title: &'static str,
    /// One for each round; none where it could not be measured.
    pub rounds: Vec<Option<Figures>>,
    /// Why it is not measured at all.
    pub skipped: Option<String>,
    /// What went wrong in the rounds.
    pub errors: Vec<String>,
}

/// Median and spread over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of some values; none when there is no value.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        Some(Self { median, min, max })
    }

    fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl Series {
    /// Nothing measured yet. Workload and server by name and title; `skipped` says why it never will be.
    pub fn new(
        workload: (&'static str, &'static str),
        server: (&'static str, &'static str),
        skipped: Option<String>,
    ) -> Self {
        let (workload, workload_title) = workload;
        let (server, server_title) = server;
        Self { workload, workload_title, server, server_title, rounds: Vec::new(), skipped, errors: Vec::new() }
    }

    /// A figure over the rounds.
    pub fn spread(&self, figure: &str) -> Option<Spread> {
        Spread::of(self.rounds.iter().flatten().filter_map(|figures| figures.get(figure).copied()))
    }

    /// A figure divided by another server's, round by round: what slows the machine in one round slows both.
    pub fn ratio(&self, figure: &str, other: &Self) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        Spread::of(pairs.filter_map(|(ours, theirs)| Some(ours.as_ref()?.get(figure)? / theirs.as_ref()?.get(figure)?)))
    }

    /// The sum of a figure over the rounds.
    pub fn sum(&self, figure: &str) -> f64 {
        self.rounds.iter().flatten().filter_map(|figures| figures.get(figure)).sum()
    }
}

/// Everything that was measured, workload by workload.
#[derive(Debug, Default)]
pub struct Results(pub Vec<Series>);

impl Results {
    /// The series of a server at a workload.
    pub fn find(&self, workload: &str, server: &str) -> Option<&Series> {
        self.0.iter().find(|series| series.workload == workload && series.server == server)
    }

    /// What the others at its workload are compared with: the first server.
    pub fn baseline(&self, series: &Series) -> Option<&Series> {
        self.0.iter().find(|other| other.workload == series.workload)
    }

    /// Whether every round of every server that can be run was measured.
    pub fn complete(&self) -> bool {
        self.0.iter().all(|series| series.rounds.iter().all(Option::is_some))
    }

    /// What went wrong, one line each.
    pub fn errors(&self) -> Vec<String> {
        let lines = |series: &Series| -> Vec<String> {
            series
                .errors
                .iter()
                .map(|why| format!("{}, {}: {why}", series.workload_title, series.server_title))
                .collect()
        };
        self.0.iter().flat_map(lines).collect()
    }

    /// What is not measured and why, one line each.
    pub fn skipped(&self) -> Vec<String> {
        let line = |series: &Series| Some(format!("{}: {}", series.server_title, series.skipped.as_ref()?));
        let mut lines: Vec<String> = self.0.iter().filter_map(line).collect();
        lines.sort();
        lines.dedup();
        lines
    }

    /// The report for programs: every figure of every round.
    pub fn json(&self) -> Value {
        let series = |series: &Series| {
            let baseline = self.baseline(series);
            let names: BTreeMap<&str, ()> =
                series.rounds.iter().flatten().flatten().map(|(name, _)| (*name, ())).collect();
            let summary = |name: &str| {
                let mut summary = series.spread(name).map_or(Value::Null, |spread| spread.json());
                summary["ratio_to_first"] =
                    json!(baseline.and_then(|baseline| Some(series.ratio(name, baseline)?.json())));
                summary
            };
            json!({
                "workload": series.workload,
                "server": series.server,
                "not_measured": series.skipped,
                "errors": series.errors,
                "figures": names.keys().map(|name| (name.to_string(), summary(name))).collect::<serde_json::Map<_, _>>(),
                "rounds": series.rounds,
            })
        };
        self.0.iter().map(series).collect()
    }
}

/// Below the tables: what is not in them, and what went wrong.
pub fn notes(all: &[&Results]) -> String {
    let mut text = String::new();
    for (title, lines) in [
        ("Not measured", all.iter().flat_map(|results| results.skipped()).collect::<Vec<_>>()),
        ("What went wrong", all.iter().flat_map(|results| results.errors()).collect()),
    ] {
        if !lines.is_empty() {
            text.push_str(&format!(
                "\n{title}:\n\n{}",
                lines.iter().map(|line| format!("- {line}\n")).collect::<String>()
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_with_the_extremes() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0].into_iter()), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0].into_iter()).unwrap().median, 2.5);
        assert_eq!(Spread::of([f64::NAN].into_iter()), None);
    }

    #[test]
    fn a_ratio_pairs_the_rounds_and_leaves_out_those_that_miss_on_either_side() {
        let series = |values: &[Option<f64>]| Series {
            rounds: values.iter().map(|value| value.map(|value| Figures::from([("figure", value)]))).collect(),
            ..Series::new(("workload", "workload"), ("server", "server"), None)
        };
        let (ours, theirs) = (series(&[Some(1.0), None, Some(3.0)]), series(&[Some(2.0), Some(1.0), Some(4.0)]));
        assert_eq!(ours.ratio("figure", &theirs), Some(Spread { median: 0.625, min: 0.5, max: 0.75 }));
    }
}
