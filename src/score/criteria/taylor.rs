//! Taylor: `|sum w g|` over the weights of a branch, `g` the gradient of the task loss over all points.
//! Molchanov et al. 2019, who square it. To first order it is the change of the loss when all weights of the branch are set
//! to zero. Equivalently, it is `|dL/da|` at `a = 1` if all of them are scaled by `a`.

use serde::Deserialize;

use crate::score::criterion::{Criterion, CriterionInfo};
use crate::score::error::ScoreError;
use crate::score::evidence::Evidence;
use crate::score::need::Need;

/// It has no parameters.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Taylor {}

pub(super) const INFO: CriterionInfo = CriterionInfo {
    name: "taylor",
    summary: "first-order estimate of the change of the training loss without the unit",
    source: "Molchanov et al. 2019, arXiv 1906.10771",
    parameters: None,
};

impl Criterion for Taylor {
    fn info(&self) -> &'static CriterionInfo {
        &INFO
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Gradients]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let timesteps = &evidence.gradients().timesteps;
        let points: usize = timesteps.iter().map(|one| one.points).sum();
        let mut sums = vec![0.0; evidence.teacher.unet.units().len()];
        for one in timesteps {
            let share = one.points as f64 / points as f64;
            sums.iter_mut().zip(&one.signed).for_each(|(sum, value)| *sum += share * value);
        }
        Ok(sums.into_iter().map(f64::abs).collect())
    }
}
