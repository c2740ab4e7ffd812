//! Parameters of the U-Net.

use super::{Better, Exam, Metric, MetricError, Need, Subject};

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

    fn needs(&self) -> &'static [Need] {
        &[]
    }

    fn measure(&self, _exam: &Exam<'_>, subject: &Subject<'_>) -> Result<Vec<f64>, MetricError> {
        Ok(vec![subject.unet.parameters() as f64])
    }
}
