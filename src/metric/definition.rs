//! What a metric is.

use super::error::MetricError;
use super::inputs::{FeatureInputs, NetworkInputs, Texts};
use super::kinds::{Better, Need, Prominence, Statistic};
use crate::model::unet::UNet;

/// What a metric is computed from.
#[derive(Clone, Copy)]
pub enum Method {
    /// The U-Net: one value per point or repetition, or a single one.
    Network(fn(&NetworkInputs<'_>, &UNet) -> Result<Vec<f64>, MetricError>),
    /// A scorer's features of the pictures: one value per prompt.
    Features(fn(&FeatureInputs<'_>) -> Result<Vec<f64>, MetricError>),
}

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

    /// How it is computed.
    fn method(&self) -> Method;

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
}
