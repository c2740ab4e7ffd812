//! Reconstructed loss: the output loss without a unit after the best linear repair of its removal.
//!
//! Ours. Where a reconstruction follows, what a linear map can make up for is not lost: a ResNet's learned shortcut that is
//! solved anew, or a linear map in place of the unit. Each point is measured with maps that were fitted to other points.

use serde::Deserialize;

use crate::score::context::ScoringContext;
use crate::score::criterion::{Criterion, CriterionInfo};
use crate::score::error::ScoreError;
use crate::score::evidence::Evidence;
use crate::score::joint::variant_losses;
use crate::score::need::Need;
use crate::score::repairs::{halves, repairs};
use crate::score::walk::Variant;

/// It has no parameters.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ReconstructedLoss {}

pub(super) const INFO: CriterionInfo = CriterionInfo {
    name: "reconstructed-loss",
    summary: "output loss without the unit after a least-squares repair by a linear map, as `reconstruct` finds it",
    source: "this program; channel pruning reconstructs layers since Luo et al. 2017, ThiNet, arXiv 1707.06342",
    parameters: None,
};

impl Criterion for ReconstructedLoss {
    fn info(&self) -> &'static CriterionInfo {
        &INFO
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Traversal]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let (unet, points, context) = (evidence.teacher.unet, evidence.teacher.points, evidence.context);
        if points.len() < 2 {
            return Err(ScoreError::OnePoint { criterion: INFO.name });
        }
        context.progress.note("fitting a linear repair of each unit's removal");
        let [first, second] = repairs(unet, points, context)?;
        let mut sums = vec![0.0; unet.units().len()];
        for (half, repairs) in halves(points.len()).into_iter().zip([second, first]) {
            let variants: Vec<_> = (unet.units().iter().zip(&repairs))
                .map(|(unit, repair)| Variant::repaired(unit, repair.as_ref()))
                .collect();
            let name = format!("repaired-{}", half.start);
            let what = format!("{:?} {}", unet.inventory().granularity(), context.limits.points);
            let part = points.batch(half.clone())?;
            let context = ScoringContext { weights: context.weights_of(&half), ..*context };
            let losses = variant_losses(&name, unet, &part, &variants, &what, &context)?;
            sums.iter_mut().zip(losses).for_each(|(sum, loss)| *sum += loss * half.len() as f64);
        }
        Ok(sums.into_iter().map(|sum| sum / points.len() as f64).collect())
    }
}
