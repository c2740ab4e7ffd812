//! Gates: conditions on the results, such as `retrained.pick-score.retained >= 0.96`, for use in continuous integration.
//!
//! A gate names a model, a metric, what of the metric (its value, unless it says otherwise), an end of the interval if
//! the gate is about one, a comparison and a number. Shares are fractions of 1 in gates, though files and reports give
//! percentages.

use serde::{Deserialize, Serialize};

use super::record::{Estimate, Measurement, Metrics};

/// A condition on the results.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    pub(super) text: String,
    pub(super) model: String,
    pub(super) metric: String,
    pub(super) quantity: Quantity,
    pub(super) end: End,
    pub(super) comparison: Comparison,
    pub(super) bound: f64,
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

/// What of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    Value,
    OfTeacher,
    Difference,
    Wins,
    Retained,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Middle,
    Low,
    High,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
}

impl Gate {
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

impl Verdict {
    /// What was found, for a line of text.
    pub fn in_words(&self) -> String {
        let found = self.found.map_or("it was not measured".to_owned(), |found| format!("found {found:.6}"));
        format!("{} is {}: {found}", self.gate, if self.met { "met" } else { "not met" })
    }
}
