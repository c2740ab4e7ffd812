//! Parameters of the U-Net.

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::{InMemory, NetworkInputs};
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

    fn method(&self) -> Method {
        Method::Network(measure)
    }
}

fn measure(_inputs: &NetworkInputs<'_>, InMemory { unet, .. }: &InMemory) -> Result<Vec<f64>, MetricError> {
    Ok(vec![unet.parameters() as f64])
}
