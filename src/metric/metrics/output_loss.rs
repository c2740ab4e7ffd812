//! Output loss on held-out points: the mean squared difference between a model's and the teacher's predictions.
//! It is the criterion of Zhang et al. 2024 (LAPTOP-Diff), used as a measure of fidelity. One value per point.

use candle_core::{DType, Tensor};

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::{NetworkInputs, predict};
use crate::metric::kinds::{Better, Need, Prominence};
use crate::model::unet::UNet;

const NAME: &str = "output-loss";

/// The row in `METRICS`.
pub(super) struct OutputLoss;

impl Metric for OutputLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "mean squared difference from the teacher's prediction on held-out points"
    }

    fn unit(&self) -> &'static str {
        ""
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn method(&self) -> Method {
        Method::Network(measure)
    }

    fn prominence(&self) -> Prominence {
        Prominence::Comparison
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Points]
    }
}

fn measure(inputs: &NetworkInputs<'_>, unet: &UNet) -> Result<Vec<f64>, MetricError> {
    let (points, teacher) =
        inputs.points.as_ref().ok_or(MetricError::Needs { metric: NAME, need: Need::Points })?;
    let predictions = predict(unet, points, inputs.batch)?;
    Ok(mean_squares(&(predictions - teacher)?)?)
}

/// The mean square of each sample of a batch.
fn mean_squares(difference: &Tensor) -> candle_core::Result<Vec<f64>> {
    difference.to_dtype(DType::F64)?.sqr()?.flatten_from(1)?.mean(1)?.to_vec1()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    #[test]
    fn the_mean_is_over_elements() -> candle_core::Result<()> {
        let difference = candle_core::Tensor::new(&[[[[1f32, -3.0]]], [[[0.0, 2.0]]]], &Device::Cpu)?;
        assert_eq!(super::mean_squares(&difference)?, [5.0, 2.0]);
        Ok(())
    }
}
