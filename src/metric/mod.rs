//! What a model is worth: quality, fidelity, size, speed.
//!
//! A metric gives one value per prompt, per point or per repetition; [`Evaluation`] turns them into a value with an
//! interval and a percentage of the teacher's. A new metric is one file and one row in [`METRICS`].

mod attribute_accuracy;
mod bootstrap;
mod clip_score;
mod error;
mod evaluation;
mod exam;
mod gallery;
mod judge;
mod latency;
mod macs;
mod output_loss;
mod parameters;
mod peak_memory;
mod pick_score;
mod read;
mod record;
mod room;

use serde::{Deserialize, Serialize};

pub use bootstrap::{Interval, bootstrap};
pub use error::MetricError;
pub use evaluation::{Candidate, Evaluation, Fill, Keep, Outcome};
pub use exam::{Exam, Subject};
pub use gallery::{Gallery, picture_path};
pub use judge::Judge;
pub use record::{Baseline, Measurement, Metrics, ModelMetrics, ModelValues, Values};

/// Time and memory, which differ from run to run. The name is hidden because a cache takes no digest of hidden files.
pub const TIMINGS_FILE: &str = ".timings.json";

/// One way to measure a model.
pub trait Metric: Sync {
    /// Its name in pipelines and files.
    fn name(&self) -> &'static str;

    /// One line for `laptop-diff list`.
    fn summary(&self) -> &'static str;

    /// The unit of its values; empty for a bare number.
    fn unit(&self) -> &'static str;

    /// Which direction is good.
    fn better(&self) -> Better;

    /// What it cannot do without.
    fn needs(&self) -> &'static [Need];

    /// How its values become one.
    fn statistic(&self) -> Statistic {
        Statistic::Mean
    }

    /// Whether a second run on the same kind of device gives the same values. Those that do not are kept out of
    /// `metrics.json`, whose digest must be the same after every run.
    fn reproducible(&self) -> bool {
        true
    }

    /// The values of one model.
    fn measure(&self, exam: &Exam<'_>, subject: &Subject<'_>) -> Result<Vec<f64>, MetricError>;
}

/// Every metric there is.
pub const METRICS: &[&dyn Metric] = &[
    &clip_score::ClipScore,
    &pick_score::PickScore,
    &attribute_accuracy::AttributeAccuracy,
    &output_loss::OutputLoss,
    &parameters::Parameters,
    &macs::Macs,
    &latency::Latency,
    &peak_memory::PeakMemory,
];

/// The metric of this name.
pub fn find(name: &str) -> Result<&'static dyn Metric, MetricError> {
    METRICS
        .iter()
        .copied()
        .find(|metric| metric.name() == name)
        .ok_or_else(|| MetricError::Unknown { name: name.to_owned() })
}

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither.
    None,
}

/// What a metric cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Pictures of the prompts, so an autoencoder.
    Pictures,
    /// A CLIP that scores pictures against texts.
    Scorer,
    /// Held-out calibration points.
    Points,
    /// Lists of attribute words.
    Attributes,
}

/// How many values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// The arithmetic mean.
    Mean,
    /// The median.
    Median,
}

impl Statistic {
    /// The statistic of some values; NaN for none.
    pub fn of(self, values: &[f64]) -> f64 {
        match self {
            Self::Mean => values.iter().sum::<f64>() / values.len() as f64,
            Self::Median if values.is_empty() => f64::NAN,
            Self::Median => {
                let mut sorted = values.to_vec();
                sorted.sort_by(f64::total_cmp);
                let middle = sorted.len() / 2;
                if sorted.len() % 2 == 1 {
                    sorted[middle]
                } else {
                    (sorted[middle - 1] + sorted[middle]) / 2.0
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for metric in METRICS {
            let found = find(metric.name()).expect("it is in the table");
            assert_eq!(found.summary(), metric.summary());
        }
        assert!(matches!(find("fid"), Err(MetricError::Unknown { .. })));
    }

    #[test]
    fn mean_and_median() {
        assert_eq!(Statistic::Mean.of(&[1.0, 2.0, 6.0]), 3.0);
        assert_eq!(Statistic::Median.of(&[6.0, 1.0, 2.0]), 2.0);
        assert_eq!(Statistic::Median.of(&[6.0, 1.0, 2.0, 4.0]), 3.0);
        assert!(Statistic::Median.of(&[]).is_nan());
    }
}
