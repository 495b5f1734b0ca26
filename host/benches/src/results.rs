//! What was measured: for each work and subject the figures of every round.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The figures of one round by name. The name ends with the unit.
pub type Figures = BTreeMap<&'static str, f64>;

/// One subject at one work.
#[derive(Debug)]
pub struct Cell {
    pub work: &'static str,
    pub work_title: &'static str,
    pub subject: &'static str,
    pub subject_title: &'static str,
    /// One for each round; none where it could not be measured.
    pub rounds: Vec<Option<Figures>>,
    /// Why it is not measured at all.
    pub absent: Option<String>,
    /// What went wrong in the rounds.
    pub troubles: Vec<String>,
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

impl Cell {
    /// A figure over the rounds.
    pub fn spread(&self, figure: &str) -> Option<Spread> {
        Spread::of(self.rounds.iter().flatten().filter_map(|figures| figures.get(figure).copied()))
    }

    /// A figure divided by another subject's, round by round: what slows the machine in one round slows both.
    pub fn ratio(&self, figure: &str, other: &Self) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        Spread::of(pairs.filter_map(|(ours, theirs)| Some(ours.as_ref()?.get(figure)? / theirs.as_ref()?.get(figure)?)))
    }

    /// The sum of a figure over the rounds.
    pub fn sum(&self, figure: &str) -> f64 {
        self.rounds.iter().flatten().filter_map(|figures| figures.get(figure)).sum()
    }
}

/// Everything that was measured, work by work.
#[derive(Debug, Default)]
pub struct Results(pub Vec<Cell>);

impl Results {
    /// The cell of a subject at a work.
    pub fn find(&self, work: &str, subject: &str) -> Option<&Cell> {
        self.0.iter().find(|cell| cell.work == work && cell.subject == subject)
    }

    /// Whom the others at its work are compared with: the first subject.
    pub fn base(&self, cell: &Cell) -> Option<&Cell> {
        self.0.iter().find(|other| other.work == cell.work)
    }

    /// Whether every round of every subject that can be run was measured.
    pub fn complete(&self) -> bool {
        self.0.iter().all(|cell| cell.rounds.iter().all(Option::is_some))
    }

    /// What went wrong, one line each.
    pub fn troubles(&self) -> Vec<String> {
        let lines = |cell: &Cell| -> Vec<String> {
            cell.troubles.iter().map(|why| format!("{}, {}: {why}", cell.work_title, cell.subject_title)).collect()
        };
        self.0.iter().flat_map(lines).collect()
    }

    /// Who is not measured and why, one line each.
    pub fn absences(&self) -> Vec<String> {
        let line = |cell: &Cell| Some(format!("{}: {}", cell.subject_title, cell.absent.as_ref()?));
        let mut lines: Vec<String> = self.0.iter().filter_map(line).collect();
        lines.sort();
        lines.dedup();
        lines
    }

    /// All of it, every round.
    pub fn json(&self) -> Value {
        let cell = |cell: &Cell| {
            let base = self.base(cell);
            let names: BTreeMap<&str, ()> =
                cell.rounds.iter().flatten().flatten().map(|(name, _)| (*name, ())).collect();
            let summary = |name: &str| {
                let mut summary = cell.spread(name).map_or(Value::Null, |spread| spread.json());
                summary["ratio_to_first"] = json!(base.and_then(|base| Some(cell.ratio(name, base)?.json())));
                summary
            };
            json!({
                "work": cell.work,
                "subject": cell.subject,
                "not_measured": cell.absent,
                "troubles": cell.troubles,
                "figures": names.keys().map(|name| (name.to_string(), summary(name))).collect::<serde_json::Map<_, _>>(),
                "rounds": cell.rounds,
            })
        };
        self.0.iter().map(cell).collect()
    }
}

/// Below the tables: what is not in them, and what went wrong.
pub fn remarks(all: &[&Results]) -> String {
    let mut text = String::new();
    for (title, lines) in [
        ("Not measured", all.iter().flat_map(|results| results.absences()).collect::<Vec<_>>()),
        ("What went wrong", all.iter().flat_map(|results| results.troubles()).collect()),
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
        let cell = |values: &[Option<f64>]| Cell {
            work: "work",
            work_title: "work",
            subject: "subject",
            subject_title: "subject",
            rounds: values.iter().map(|value| value.map(|value| Figures::from([("figure", value)]))).collect(),
            absent: None,
            troubles: Vec::new(),
        };
        let (ours, theirs) = (cell(&[Some(1.0), None, Some(3.0)]), cell(&[Some(2.0), Some(1.0), Some(4.0)]));
        assert_eq!(ours.ratio("figure", &theirs), Some(Spread { median: 0.625, min: 0.5, max: 0.75 }));
    }
}
