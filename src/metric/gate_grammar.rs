//! Reads gates: MODEL.METRIC, then a quantity and an end of its interval if the gate is about those, a comparison and a
//! number. An error underlines the part that is wrong.

use std::fmt;
use std::ops::Range;

use super::gate::{Comparison, End, Gate, Quantity};
use crate::base::names;

/// A gate that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateError {
    text: String,
    at: Range<usize>,
    /// What is wrong.
    reason: String,
    /// What to write instead.
    pub help: String,
}

const QUANTITIES: [(&str, Quantity); 5] = [
    ("value", Quantity::Value),
    ("of-teacher", Quantity::OfTeacher),
    ("difference", Quantity::Difference),
    ("wins", Quantity::Wins),
    ("retained", Quantity::Retained),
];

const ENDS: [(&str, End); 2] = [("low", End::Low), ("high", End::High)];

/// The longer ones first: `>` begins `>=`.
const COMPARISONS: [(&str, Comparison); 4] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

impl Gate {
    /// Reads a gate on these models and metrics. `teacher` is one of the models.
    pub fn parse(text: &str, models: &[&str], teacher: &str, metrics: &[&str]) -> Result<Self, GateError> {
        let error = |at, reason, help: String| GateError { text: text.to_owned(), at, reason, help };
        let found =
            COMPARISONS.iter().filter_map(|(sign, comparison)| Some((text.find(sign)?, sign, *comparison)));
        let first = found.min_by_key(|(place, sign, _)| (*place, 2 - sign.len()));
        let (place, sign, comparison) = first.ok_or_else(|| {
            let reason = "it has none of `>=`, `<=`, `>` and `<`".to_owned();
            error(0..text.len(), reason, "write MODEL.METRIC >= NUMBER".to_owned())
        })?;
        let bound = text[place + sign.len()..].trim();
        let bound = number(bound).ok_or_else(|| {
            let help = "write a number such as 0.96, 96 % or 1.3e9".to_owned();
            let start = text.len() - text[place + sign.len()..].trim_start().len();
            error(start..start + bound.len(), format!("`{bound}` is not a number"), help)
        })?;
        let start = text.len() - text.trim_start().len();
        let left = text[start..place].trim_end();
        let subject = Subject { models, teacher, metrics };
        let (model, metric, quantity, end) = subject
            .read(left)
            .map_err(|(at, reason, help)| error(start + at.start..start + at.end, reason, help))?;
        let (model, metric) = (model.to_owned(), metric.to_owned());
        Ok(Self { text: text.trim().to_owned(), model, metric, quantity, end, comparison, bound })
    }
}

/// The place of a wrong word, what is wrong with it, and what to write instead.
type Wrong = (Range<usize>, String, String);

/// What gates can be about.
struct Subject<'a> {
    models: &'a [&'a str],
    teacher: &'a str,
    metrics: &'a [&'a str],
}

impl Subject<'_> {
    /// The model, the metric and what of it: the part of a gate before the comparison.
    fn read<'t>(&self, text: &'t str) -> Result<(&'t str, &'t str, Quantity, End), Wrong> {
        // A model's name may hold dots.
        let inside = |model: &&&str| text.strip_prefix(**model).is_some_and(|rest| rest.starts_with('.'));
        let Some(length) = self.models.iter().filter(inside).map(|model| model.len()).max() else {
            let name = text.split('.').next().unwrap_or_default();
            let reason = format!("`{name}` is not among the models");
            return Err((0..name.len(), reason, names::help(name, &owned(self.models))));
        };
        let model = &text[..length];
        let mut words = Words { rest: &text[length + 1..], at: length + 1 };
        let (metric, at) = words.next();
        if !self.metrics.contains(&metric) {
            let reason = format!("`{metric}` is not among the metrics");
            return Err((at, reason, names::help(metric, &owned(self.metrics))));
        }
        let quantity = words.take(&QUANTITIES).unwrap_or(Quantity::Value);
        let end = words.take(&ENDS).unwrap_or(End::Middle);
        if !words.rest.is_empty() {
            let (word, at) = words.next();
            let known: Vec<&str> = QUANTITIES.iter().map(|one| one.0).chain(ENDS.map(|one| one.0)).collect();
            let reason = format!("`{word}` is nothing that a metric has");
            return Err((at, reason, format!("it has {}", known.join(", "))));
        }
        if model == self.teacher && quantity != Quantity::Value {
            let reason = format!("`{model}` is the teacher, which is not compared with itself");
            return Err((0..length, reason, "name another model".to_owned()));
        }
        Ok((model, metric, quantity, end))
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The words between the dots, with their places.
struct Words<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> (&'a str, Range<usize>) {
        let word = self.rest.split('.').next().unwrap_or_default();
        let at = self.at..self.at + word.len();
        self.at += (word.len() + 1).min(self.rest.len());
        self.rest = self.rest.get(word.len() + 1..).unwrap_or_default();
        (word, at)
    }

    /// The next word's meaning, if a table has it.
    fn take<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        let word = self.rest.split('.').next()?;
        let found = table.iter().find(|(name, _)| *name == word)?.1;
        self.next();
        Some(found)
    }
}

/// A finite number; a percentage is a hundredth of it.
fn number(text: &str) -> Option<f64> {
    let (text, scale) = text.strip_suffix('%').map_or((text, 1.0), |text| (text.trim_end(), 0.01));
    let number: f64 = text.parse().ok()?;
    number.is_finite().then_some(scale * number)
}

/// The gate with the wrong part underlined.
impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |part: &str| part.chars().count();
        let (before, marked) = (width(&self.text[..self.at.start]), self.at.end.min(self.text.len()));
        let marks = width(self.text.get(self.at.start..marked).unwrap_or_default()).max(1);
        write!(f, "a gate cannot be read: {}\n  {}\n  ", self.reason, self.text)?;
        write!(f, "{}{}", " ".repeat(before), "^".repeat(marks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::kinds::{Better, Statistic};
    use crate::metric::record::{Estimate, Measurement, Metrics, ModelMetrics, Paired};
    use std::collections::BTreeMap;

    const MODELS: [&str; 3] = ["teacher", "small", "small.v2"];
    const METRICS: [&str; 2] = ["pick-score", "parameters"];

    fn parse(text: &str) -> Result<Gate, GateError> {
        Gate::parse(text, &MODELS, "teacher", &METRICS)
    }

    fn results() -> Metrics {
        let interval = |value: f64| Estimate { value, low: Some(value - 2.0), high: Some(value + 2.0) };
        let measurement = Measurement {
            value: 20.0,
            statistic: Statistic::Mean,
            count: 9,
            low: Some(19.0),
            high: Some(21.0),
            unit: String::new(),
            better: Better::Higher,
            of_teacher: Some(98.0),
            of_teacher_low: Some(97.0),
            of_teacher_high: Some(99.0),
            paired: Some(Paired {
                difference: interval(-1.0),
                wins: interval(40.0),
                deviation: Some(1.0),
                wanted: None,
            }),
            floor: Some(17.0),
            noise: None,
            retained: Some(interval(96.0)),
        };
        let metrics = BTreeMap::from([("pick-score".to_owned(), measurement)]);
        let mut results = Metrics::new("teacher", 9, 1);
        results.models.push(ModelMetrics {
            model: "small.v2".to_owned(),
            metrics,
            unavailable: BTreeMap::new(),
        });
        results
    }

    #[test]
    fn a_gate_is_about_a_value_or_an_end_of_its_interval() {
        for (text, found) in [
            ("small.v2.pick-score >= 20", 20.0),
            ("small.v2.pick-score.low > 18", 19.0),
            ("small.v2.pick-score.value.high<=21", 21.0),
            ("small.v2.pick-score.of-teacher >= 98 %", 0.98),
            ("small.v2.pick-score.difference.low >= -3", -3.0),
            ("small.v2.pick-score.wins < 0.5", 0.4),
            ("  small.v2.pick-score.retained >= 0.96 ", 0.96),
            ("small.v2.pick-score.retained.low >= 9.4e-1", 0.94),
        ] {
            let verdict = parse(text).expect("it is right").verdict(&results(), None);
            assert!(verdict.met, "{text}: {verdict:?}");
            assert!((verdict.found.expect("it was measured") - found).abs() < 1e-12, "{text}: {verdict:?}");
        }
        let missed = parse("small.v2.pick-score.retained.low >= 0.95").expect("it is right");
        assert!(!missed.verdict(&results(), None).met);
        let absent = parse("small.parameters <= 1.3e9").expect("it is right").verdict(&results(), None);
        assert_eq!((absent.found, absent.met), (None, false));
    }

    #[test]
    fn the_wrong_part_of_a_gate_is_underlined() {
        for (text, marks, reason) in [
            ("smal.pick-score >= 20", "^^^^", "`smal` is not among the models"),
            ("small.pick-scor >= 20", "      ^^^^^^^^^", "`pick-scor` is not among the metrics"),
            ("small.pick-score.mean > 2", "                 ^^^^", "`mean` is nothing that a metric has"),
            ("small.pick-score >= 2o", "                    ^^", "`2o` is not a number"),
            ("small.pick-score = 20", "^^^^^^^^^^^^^^^^^^^^^", "it has none of `>=`, `<=`, `>` and `<`"),
            ("teacher.pick-score.wins > 0", "^^^^^^^", "which is not compared with itself"),
            ("small.pick-score >", "                  ^", "`` is not a number"),
        ] {
            let error = parse(text).expect_err("it is wrong").to_string();
            assert!(error.contains(reason), "{error}");
            assert_eq!(error.lines().nth(2), Some(format!("  {marks}").as_str()), "{error}");
        }
    }
}
