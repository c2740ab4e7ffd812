//! What a metric is.

use candle_core::Tensor;

use super::error::MetricError;
use super::inputs::{FeatureInputs, InMemory, NetworkInputs, SetInputs, Texts};
use super::kinds::{Better, Need, OfSet, Prominence, Statistic};
use crate::model::ScorerKind;

/// What a metric is computed from.
#[derive(Clone, Copy)]
pub enum Method {
    /// The U-Net: one value per point or repetition, or a single one.
    Network(fn(&NetworkInputs<'_>, &InMemory) -> Result<Vec<f64>, MetricError>),
    /// The final latents of a model's pictures and of the teacher's, [n, c, h, w]: one value per prompt.
    Latents(fn(&Tensor, &Tensor) -> candle_core::Result<Vec<f64>>),
    /// A scorer's features of the pictures and of texts: one value per prompt.
    Features(fn(&FeatureInputs<'_>) -> Result<Vec<f64>, MetricError>),
    /// What a scorer itself gives each picture for its prompt: one value per prompt.
    Scores,
    /// A scorer's features of the pictures of each seed, [n, d]: one value per prompt.
    Seeds(fn(&[Tensor]) -> Result<Vec<f64>, MetricError>),
    /// A scorer's features of all pictures and of a reference: one value for all.
    Set(fn(&SetInputs<'_>) -> Result<OfSet, MetricError>),
}

impl Method {
    /// Whether pictures are compared with texts, so that pictures that have nothing to do with their prompts give a floor.
    pub(super) fn has_floor(self) -> bool {
        matches!(self, Self::Features(_) | Self::Scores)
    }

    /// Whether there is one value per prompt, so that models can be compared prompt by prompt.
    pub fn is_by_prompt(self) -> bool {
        matches!(self, Self::Features(_) | Self::Scores | Self::Seeds(_))
    }
}

/// One way to measure a model.
pub trait Metric: Sync {
    /// Its name in pipelines and files.
    fn name(&self) -> &'static str;

    /// Its name in sentences and tables for people.
    fn title(&self) -> String {
        self.name().replace('-', " ")
    }

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

    /// What its scorer can be, if it needs one.
    fn scorers(&self) -> &'static [ScorerKind] {
        &[ScorerKind::Clip]
    }

    /// Where the weights of its scorer are released, and how big they are.
    fn released(&self) -> Option<&'static str> {
        None
    }

    /// The smallest number of pictures for which its values mean anything.
    fn least_pictures(&self) -> usize {
        1
    }

    /// Whether 0 means nothing at all, so that a percentage of the teacher's value makes sense.
    fn has_zero(&self) -> bool {
        true
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
