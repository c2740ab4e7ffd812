//! Parameters of the U-Net.

use crate::metric::definition::Metric;
use crate::metric::error::MetricError;
use crate::metric::inputs::{EvaluationInputs, LoadedModel};
use crate::metric::kinds::Better;

/// The row in `METRICS`.
pub(super) struct Parameters;

impl Metric for Parameters {
    fn name(&self) -> &'static str {
        "parameters"
    }

    fn summary(&self) -> &'static str {
        "parameters of the U-Net"
    }

    fn unit(&self) -> &'static str {
        "parameters"
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn measure(
        &self,
        _inputs: &EvaluationInputs<'_>,
        model: &LoadedModel<'_>,
    ) -> Result<Vec<f64>, MetricError> {
        Ok(vec![model.unet.parameters() as f64])
    }
}
