//! Magnitude: the mean absolute weight of a branch.
//! Han et al. 2015 prune single weights by it. The mean over a whole branch is the usual form for structures; Li et al.
//! 2017 take the sum, which mostly measures size when branches differ in size.

use candle_core::{DType, Device};

use serde::Deserialize;

use crate::score::criterion::{Criterion, CriterionInfo};
use crate::score::error::ScoreError;
use crate::score::evidence::Evidence;

/// It has no parameters.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Magnitude {}

pub(super) const INFO: CriterionInfo = CriterionInfo {
    name: "magnitude",
    summary: "mean absolute weight of the unit",
    source: "Han et al. 2015, arXiv 1506.02626; Li et al. 2017, arXiv 1608.08710",
    parameters: None,
};

impl Criterion for Magnitude {
    fn info(&self) -> &'static CriterionInfo {
        &INFO
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let inventory = evidence.teacher.unet.inventory();
        let mean = |unit| {
            let mut sum = 0.0;
            for entry in inventory.tensors_of(unit) {
                let tensor = evidence.teacher.weights.tensor(&entry.name, DType::F32, &Device::Cpu)?;
                let tensor = tensor.abs()?.reshape((tensor.dim(0)?, ()))?;
                // Rows are summed in f32, and their sums in f64: a branch can have 50 M weights.
                let rows: Vec<f32> = tensor.sum(1)?.to_vec1()?;
                sum += rows.into_iter().map(f64::from).sum::<f64>();
            }
            Ok(sum / unit.parameters as f64)
        };
        inventory.units().iter().map(mean).collect()
    }
}
