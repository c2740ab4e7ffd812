//! How much each unit matters: criteria, the traversal that measures them, and whether losses add.

pub mod additivity;
mod block_influence;
mod checkpoint;
pub mod gram;
mod latency;
mod magnitude;
mod output_loss;
mod random;
pub mod table;
mod traversal;
pub mod walk;

use std::path::PathBuf;

use miette::Diagnostic;

use crate::backend::Random;
use crate::base::{Interrupted, UnitId};
use crate::data::Calibration;
use crate::model::unet::{PruneError, UNet, Unit};
use crate::model::weights::{Weights, WeightsError};

pub use additivity::{Additivity, Agreement, MeasuredSet};
pub use gram::Gram;
pub use latency::Latency;
pub use table::{CriterionInfo, Scores, UnitScores};
pub use traversal::{Limits, Traversal, Work, joint_losses, joint_products, traverse};

/// A way to say how much each unit matters.
pub trait Criterion: Sync {
    /// Its name and source.
    fn info(&self) -> CriterionInfo;

    /// Whether it reads [`Evidence::traversal`]. Criteria that do share one.
    fn traverses(&self) -> bool {
        false
    }

    /// One value per unit of the U-Net, in walk order; lower means more dispensable.
    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError>;
}

/// Every criterion there is; the first is the default.
pub const CRITERIA: &[&dyn Criterion] = &[
    &output_loss::OutputLoss,
    &magnitude::Magnitude,
    &block_influence::BlockInfluence,
    &random::RandomScore,
];

/// What criteria look at.
pub struct Evidence<'a> {
    /// The teacher.
    pub unet: &'a UNet,
    /// Its weights as they lie on disk.
    pub weights: &'a Weights,
    /// The stage's random streams.
    pub random: &'a Random,
    traversal: Option<Traversal>,
}

impl Evidence<'_> {
    /// What the traversal found. Only for criteria that say that they read it.
    pub fn traversal(&self) -> &Traversal {
        self.traversal.as_ref().expect("BUG: a criterion reads the traversal without saying so")
    }
}

/// The criterion of this name.
pub fn criterion(name: &str) -> Result<&'static dyn Criterion, ScoreError> {
    CRITERIA.iter().copied().find(|criterion| criterion.info().name == name).ok_or_else(|| {
        let known: Vec<_> = CRITERIA.iter().map(|criterion| criterion.info().name).collect();
        ScoreError::UnknownCriterion { name: name.to_owned(), known: known.join(", ") }
    })
}

/// Scores every unit of `unet` by each criterion. The Gram matrix comes with any criterion that traverses.
pub fn score(
    unet: &UNet,
    weights: &Weights,
    points: &Calibration,
    criteria: &[&dyn Criterion],
    random: &Random,
    work: &Work<'_>,
) -> Result<Scores, ScoreError> {
    let traversal = match criteria.iter().any(|criterion| criterion.traverses()) {
        true => Some(traverse(unet, points, work)?),
        false => None,
    };
    let evidence = Evidence { unet, weights, random, traversal };
    let unit = |unit: &Unit| UnitScores {
        id: unit.id.clone(),
        kind: unit.kind,
        parameters: unit.parameters,
        macs: unit.macs,
        parent: unit.parent.clone(),
        scores: Default::default(),
    };
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
        points: points.len(),
        unet_parameters: unet.parameters(),
        unet: unet.config().to_json(),
        units,
        additivity: None,
        gram: evidence.traversal.map(|traversal| traversal.gram),
    })
}

/// Why there are no scores.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ScoreError {
    /// Asked to stop; the checkpoint is written.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The calibration is empty.
    #[error("there are no calibration points to score on")]
    #[diagnostic(code(score::no_points), help("raise `samples` of the calibrate stage"))]
    NoPoints,
    /// No such criterion.
    #[error("no criterion is called `{name}`; there are {known}")]
    #[diagnostic(code(score::unknown_criterion), help("`laptop-diff list` says what each measures"))]
    UnknownCriterion {
        /// The criterion asked for.
        name: String,
        /// The criteria there are.
        known: String,
    },
    /// A score that is no number.
    #[error("the `{criterion}` of `{unit}` is {value}; it must be a finite number")]
    #[diagnostic(
        code(score::not_finite),
        help("the U-Net without `{unit}` overflows: score it in f32 or bf16, and check its weights")
    )]
    NotFinite {
        /// The unit.
        unit: UnitId,
        /// The criterion.
        criterion: &'static str,
        /// The value found.
        value: f64,
    },
    /// Units that cannot be removed together.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Prune(#[from] PruneError),
    /// The weights cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Weights(#[from] WeightsError),
    /// The sums so far cannot be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(score::checkpoint), help("free some space, or delete this file to begin anew"))]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(score::tensor), help("if memory is short, walk fewer points or variants at once"))]
    Tensor(#[from] candle_core::Error),
}
