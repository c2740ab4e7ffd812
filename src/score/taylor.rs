//! Taylor: `|sum w g|` over the weights of a branch, `g` the gradient of the task loss over all points.
//! Molchanov et al. 2019, who square it. To first order it is what the loss changes by when all the
//! weights of the branch go to zero; in other words `|dL/da|` at `a = 1` if they are all scaled by `a`.

use super::{Criterion, CriterionInfo, Evidence, Need, ScoreError};

pub(super) struct Taylor;

impl Criterion for Taylor {
    fn info(&self) -> CriterionInfo {
        CriterionInfo {
            name: "taylor",
            summary: "first-order estimate of the change of the training loss without the unit",
            source: "Molchanov et al. 2019, arXiv 1906.10771",
        }
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
