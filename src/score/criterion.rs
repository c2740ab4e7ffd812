//! What a criterion is: one type with its parameters, its needs and its formula.

use std::fmt;

use schemars::{Schema, SchemaGenerator};

use super::error::ScoreError;
use super::evidence::Evidence;
use super::need::Need;
use crate::base::Manifest;

/// A measure of how much each unit matters. The fields of the implementing type are the criterion's parameters.
pub trait Criterion: Send + Sync + fmt::Debug {
    /// Its row in [`CRITERIA`](super::CRITERIA).
    fn info(&self) -> &'static CriterionInfo;

    /// The inputs that it requires.
    fn needs(&self) -> &'static [Need] {
        &[]
    }

    /// Adds each of its parameters, as `name-of-the-criterion.parameter`, to what the scores depend on.
    fn describe(&self, _manifest: &mut Manifest) {}

    /// One value per unit of the U-Net, in walk order; lower means more dispensable.
    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError>;
}

/// One row of [`CRITERIA`](super::CRITERIA).
pub struct CriterionInfo {
    /// Its name in pipelines.
    pub name: &'static str,
    /// One line for `laptop-diff list`.
    pub summary: &'static str,
    /// The publication.
    pub source: &'static str,
    /// The JSON schema of its parameters, which a pipeline gives under its name in `with:` of the score stage. `None` if it
    /// has no parameters.
    pub parameters: Option<fn(&mut SchemaGenerator) -> Schema>,
}
