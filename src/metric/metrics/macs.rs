//! Multiply-accumulates of one forward pass of the U-Net.

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::{InMemory, NetworkInputs};
use crate::metric::kinds::Better;

/// The row in `METRICS`.
pub(super) struct Macs;

impl Metric for Macs {
    fn name(&self) -> &'static str {
        "macs"
    }

    fn title(&self) -> String {
        "MACs".to_owned()
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

    fn method(&self) -> Method {
        Method::Network(measure)
    }
}

fn measure(inputs: &NetworkInputs<'_>, InMemory { unet, .. }: &InMemory) -> Result<Vec<f64>, MetricError> {
    let [_, height, width] = inputs.latent;
    Ok(vec![unet.macs(height, width) as f64])
}
