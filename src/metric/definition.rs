//! What a metric is.

use super::error::MetricError;
use super::inputs::{EvaluationInputs, LoadedModel, Texts};
use super::kinds::{Better, Need, Prominence, Statistic};

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

    /// The inputs that it requires.
    fn needs(&self) -> &'static [Need] {
        &[]
    }

    /// How its values become one.
    fn statistic(&self) -> Statistic {
        Statistic::Mean
    }

    /// Where a report shows it.
    fn prominence(&self) -> Prominence {
        Prominence::Table
    }

    /// Whether a second run on the same kind of device gives the same values. Metrics that do not are kept out of
    /// `metrics.json`, whose digest must be the same after every run.
    fn reproducible(&self) -> bool {
        true
    }

    /// Fails if the texts cannot be judged. Called before any picture is drawn.
    fn check(&self, _texts: Texts<'_>) -> Result<(), MetricError> {
        Ok(())
    }

    /// The values of one model.
    fn measure(
        &self,
        inputs: &EvaluationInputs<'_>,
        model: &LoadedModel<'_>,
    ) -> Result<Vec<f64>, MetricError>;
}
