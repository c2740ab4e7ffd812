//! Multiply-accumulates of one forward pass of the U-Net.

use crate::metric::definition::Metric;
use crate::metric::error::MetricError;
use crate::metric::inputs::{EvaluationInputs, LoadedModel};
use crate::metric::kinds::Better;

/// The row in `METRICS`.
pub(super) struct Macs;

impl Metric for Macs {
    fn name(&self) -> &'static str {
        "macs"
    }

    fn summary(&self) -> &'static str {
        "multiply-accumulates of one forward pass of the U-Net on one sample"
    }

    fn unit(&self) -> &'static str {
        "MAC"
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn measure(
        &self,
        inputs: &EvaluationInputs<'_>,
        model: &LoadedModel<'_>,
    ) -> Result<Vec<f64>, MetricError> {
        let [_, height, width] = inputs.latent;
        Ok(vec![model.unet.macs(height, width) as f64])
    }
}
