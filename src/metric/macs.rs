//! Multiply-accumulates of one forward pass of the U-Net.

use super::{Better, Exam, Metric, MetricError, Need, Subject};

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

    fn needs(&self) -> &'static [Need] {
        &[]
    }

    fn measure(&self, exam: &Exam<'_>, subject: &Subject<'_>) -> Result<Vec<f64>, MetricError> {
        let [_, height, width] = exam.latent;
        Ok(vec![subject.unet.macs(height, width) as f64])
    }
}
