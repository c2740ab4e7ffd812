//! Gates: conditions on the results, such as `retrained.pick-score.retained >= 0.96`, for use in continuous integration.
//!
//! A gate names a model, a metric, what of the metric (its value, unless it says otherwise), an end of the interval if
//! the gate is about one, a comparison and a number. Shares are fractions of 1 in gates, though files and reports give
//! percentages.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::record::{Estimate, Measurement, Metrics};
use crate::base::names;

/// A condition on the results.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    text: String,
    model: String,
    metric: String,
    quantity: Quantity,
    end: End,
    comparison: Comparison,
    bound: f64,
}

/// Whether a gate was met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The gate as written.
    pub gate: String,
    /// What was found; absent where the results do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<f64>,
    /// Whether it was met.
    pub met: bool,
}

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

/// What of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    Value,
    OfTeacher,
    Difference,
    Wins,
    Retained,
}

const QUANTITIES: [(&str, Quantity); 5] = [
    ("value", Quantity::Value),
    ("of-teacher", Quantity::OfTeacher),
    ("difference", Quantity::Difference),
    ("wins", Quantity::Wins),
    ("retained", Quantity::Retained),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Middle,
    Low,
    High,
}

const ENDS: [(&str, End); 2] = [("low", End::Low), ("high", End::High)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
}

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
        let error = |at: Range<usize>, reason: String, help: String| GateError {
            text: text.to_owned(),
            at,
            reason,
            help,
        };
        let found =
            COMPARISONS.iter().filter_map(|(sign, comparison)| Some((text.find(sign)?, sign, *comparison)));
        let (place, sign, comparison) =
            found.min_by_key(|(place, sign, _)| (*place, 2 - sign.len())).ok_or_else(|| {
                let reason = "it has none of `>=`, `<=`, `>` and `<`".to_owned();
                error(0..text.len(), reason, "write MODEL.METRIC >= NUMBER".to_owned())
            })?;
        let (left, right) = (&text[..place], &text[place + sign.len()..]);
        let start = place + sign.len() + (right.len() - right.trim_start().len());
        let bound = right.trim();
        let bound = number(bound).ok_or_else(|| {
            let help = "write a number such as 0.96, 96 % or 1.3e9".to_owned();
            error(start..start + bound.len().max(1), format!("`{bound}` is not a number"), help)
        })?;
        let start = left.len() - left.trim_start().len();
        let left = left.trim();
        // A model's name may hold dots.
        let inside = |model: &&&str| left.strip_prefix(**model).is_some_and(|rest| rest.starts_with('.'));
        let model = models.iter().filter(inside).max_by_key(|model| model.len()).ok_or_else(|| {
            let name = left.split('.').next().unwrap_or_default();
            let known: Vec<String> = models.iter().map(|&model| model.to_owned()).collect();
            let reason = format!("`{name}` is not among the models");
            error(start..start + name.len().max(1), reason, names::help(name, &known))
        })?;
        let mut words = Words { rest: &left[model.len() + 1..], at: start + model.len() + 1 };
        let (metric, at) = words.next();
        if !metrics.contains(&metric) {
            let known: Vec<String> = metrics.iter().map(|&metric| metric.to_owned()).collect();
            let reason = format!("`{metric}` is not among the metrics");
            return Err(error(at, reason, names::help(metric, &known)));
        }
        let (mut quantity, mut end) = (Quantity::Value, End::Middle);
        if let Some(found) = words.take(&QUANTITIES) {
            quantity = found;
        }
        if let Some(found) = words.take(&ENDS) {
            end = found;
        }
        if !words.rest.is_empty() {
            let (word, at) = words.next();
            let known: Vec<&str> = QUANTITIES.iter().map(|one| one.0).chain(ENDS.map(|one| one.0)).collect();
            let reason = format!("`{word}` is nothing that a metric has");
            return Err(error(at, reason, format!("it has {}", known.join(", "))));
        }
        if *model == teacher && quantity != Quantity::Value {
            let reason = format!("`{teacher}` is the teacher, which is not compared with itself");
            return Err(error(start..start + model.len(), reason, "name another model".to_owned()));
        }
        Ok(Self {
            text: text.trim().to_owned(),
            model: (*model).to_owned(),
            metric: metric.to_owned(),
            quantity,
            end,
            comparison,
            bound,
        })
    }

    /// Compares the gate with results. `timings` are those of the metrics of time and memory.
    pub fn verdict(&self, metrics: &Metrics, timings: Option<&Metrics>) -> Verdict {
        let measured = metrics
            .get(&self.model, &self.metric)
            .or_else(|| timings.and_then(|timings| timings.get(&self.model, &self.metric)));
        let found = measured.and_then(|measured| self.of(measured));
        let is_met = |found: f64| match self.comparison {
            Comparison::AtLeast => found >= self.bound,
            Comparison::AtMost => found <= self.bound,
            Comparison::Above => found > self.bound,
            Comparison::Below => found < self.bound,
        };
        Verdict { gate: self.text.clone(), found, met: found.is_some_and(is_met) }
    }

    fn of(&self, measured: &Measurement) -> Option<f64> {
        let Measurement {
            value,
            low,
            high,
            of_teacher,
            of_teacher_low,
            of_teacher_high,
            paired,
            retained,
            ..
        } = *measured;
        let (estimate, scale) = match self.quantity {
            Quantity::Value => (Estimate { value, low, high }, 1.0),
            Quantity::OfTeacher => {
                (Estimate { value: of_teacher?, low: of_teacher_low, high: of_teacher_high }, 0.01)
            }
            Quantity::Difference => (paired?.difference, 1.0),
            Quantity::Wins => (paired?.wins, 0.01),
            Quantity::Retained => (retained?, 0.01),
        };
        let end = match self.end {
            End::Middle => Some(estimate.value),
            End::Low => estimate.low,
            End::High => estimate.high,
        };
        end.map(|end| scale * end)
    }
}

/// The words between the dots, with their places.
struct Words<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> (&'a str, Range<usize>) {
        let word = self.rest.split('.').next().unwrap_or_default();
        let at = self.at..self.at + word.len().max(1);
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

impl Verdict {
    /// What was found, for a line of text.
    pub fn in_words(&self) -> String {
        let found = self.found.map_or("it was not measured".to_owned(), |found| format!("found {found:.6}"));
        format!("{} is {}: {found}", self.gate, if self.met { "met" } else { "not met" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::record::{ModelMetrics, Paired};
    use crate::metric::{Better, Statistic};
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
            paired: Some(Paired { difference: interval(-1.0), wins: interval(40.0), deviation: Some(1.0) }),
            floor: Some(17.0),
            retained: Some(interval(96.0)),
        };
        let metrics = BTreeMap::from([("pick-score".to_owned(), measurement)]);
        let mut results = Metrics::new("teacher", 9, 1);
        results.models.push(ModelMetrics { model: "small.v2".to_owned(), metrics });
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
