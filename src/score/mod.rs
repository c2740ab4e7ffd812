//! How much each unit matters: criteria, what they look at, and whether losses add.

pub mod additivity;
mod block_influence;
mod checkpoint;
mod delta_clip;
mod delta_task_loss;
mod diff_pruning;
mod error;
mod evidence;
mod gradients;
pub mod gram;
mod latency;
mod magnitude;
mod output_loss;
mod random;
pub mod table;
mod task;
mod taylor;
mod timestep_weighted;
mod traversal;
pub mod walk;

use crate::model::network::Unit;

pub use additivity::{Additivity, Agreement, MeasuredSet};
pub use error::ScoreError;
pub use evidence::{ClipScore, Evidence, Need, Teacher};
pub use gradients::{Gradients, TimestepGradients, gradients};
pub use gram::Gram;
pub use latency::Latency;
pub use output_loss::NAME as OUTPUT_LOSS;
pub use table::{CriterionInfo, Scores, UnitScores};
pub use task::{Task, Weighting};
pub use traversal::{Limits, TaskEffects, Traversal, Work, joint_losses, joint_products, traverse};

/// A way to say how much each unit matters.
pub trait Criterion: Sync {
    /// Its name and source.
    fn info(&self) -> CriterionInfo;

    /// What it cannot do without. Criteria with the same needs share what is gathered.
    fn needs(&self) -> &'static [Need] {
        &[]
    }

    /// One value per unit of the U-Net, in walk order; lower means more dispensable.
    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError>;
}

/// Every criterion there is; the first is the default.
pub const CRITERIA: &[&dyn Criterion] = &[
    &output_loss::OutputLoss,
    &timestep_weighted::TimestepWeighted,
    &delta_task_loss::DeltaTaskLoss,
    &magnitude::Magnitude,
    &taylor::Taylor,
    &diff_pruning::DiffPruning,
    &block_influence::BlockInfluence,
    &delta_clip::DeltaClip,
    &random::RandomScore,
];

/// The criterion of this name.
pub fn criterion(name: &str) -> Result<&'static dyn Criterion, ScoreError> {
    CRITERIA.iter().copied().find(|criterion| criterion.info().name == name).ok_or_else(|| {
        let known: Vec<_> = CRITERIA.iter().map(|criterion| criterion.info().name).collect();
        ScoreError::UnknownCriterion { name: name.to_owned(), known: known.join(", ") }
    })
}

/// Scores every unit of `teacher` by each criterion. The Gram matrix comes with any criterion that traverses.
pub fn score(
    teacher: &Teacher<'_>,
    criteria: &[&dyn Criterion],
    work: &Work<'_>,
) -> Result<Scores, ScoreError> {
    if teacher.unet.units().is_empty() {
        return Err(ScoreError::NoUnits);
    }
    let evidence = Evidence::gather(teacher, criteria, work)?;
    let unit = |unit: &Unit| UnitScores {
        id: unit.id.clone(),
        kind: unit.kind,
        parameters: unit.parameters,
        macs: unit.macs,
        parent: unit.parent.clone(),
        scores: Default::default(),
    };
    let unet = teacher.unet;
    let mut units: Vec<_> = unet.units().iter().map(unit).collect();
    for criterion in criteria {
        let name = criterion.info().name;
        for (unit, value) in units.iter_mut().zip(criterion.scores(&evidence)?) {
            if !value.is_finite() {
                return Err(ScoreError::NotFinite { unit: unit.id.clone(), criterion: name, value });
            }
            unit.scores.insert(name.to_owned(), value);
        }
    }
    Ok(Scores {
        format: table::FORMAT,
        criteria: criteria.iter().map(|criterion| criterion.info().name.to_owned()).collect(),
        points: teacher.points.len(),
        unet_parameters: unet.parameters(),
        unet: unet.config().to_json(),
        units,
        additivity: None,
        gram: evidence.into_gram(),
    })
}
