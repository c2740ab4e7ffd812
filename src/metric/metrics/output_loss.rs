//! Output loss on held-out points: the mean squared difference between a model's and the teacher's predictions, one value per
//! point. As the model predicts, it is the criterion of Zhang et al. 2024 (LAPTOP-Diff), used as a measure of fidelity. The
//! others weigh the timesteps differently, as [`Space`] says.

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::{InMemory, NetworkInputs};
use crate::metric::kinds::{Better, Need, Prominence};
use crate::score::Space;

/// A row in `METRICS`.
pub(super) struct OutputLoss {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) method: fn(&NetworkInputs<'_>, &InMemory) -> Result<Vec<f64>, MetricError>,
    pub(super) prominence: Prominence,
}

/// The paper's.
pub(super) const PREDICTION: OutputLoss = OutputLoss {
    name: "output-loss",
    summary: "mean squared difference from the teacher's prediction on held-out points",
    method: |inputs, model| measure(inputs, model, Space::Prediction, PREDICTION.name),
    prominence: Prominence::Comparison,
};

pub(super) const CLEAN_LATENTS: OutputLoss = OutputLoss {
    name: "clean-latent-loss",
    summary: "output loss of the predicted clean latents, which looks at strong noise most",
    method: |inputs, model| measure(inputs, model, Space::CleanLatents, CLEAN_LATENTS.name),
    prominence: Prominence::Table,
};

pub(super) const VELOCITY: OutputLoss = OutputLoss {
    name: "velocity-loss",
    summary: "output loss of the predicted velocity",
    method: |inputs, model| measure(inputs, model, Space::Velocity, VELOCITY.name),
    prominence: Prominence::Table,
};

pub(super) const MIN_SNR: OutputLoss = OutputLoss {
    name: "min-snr-loss",
    summary: "output loss of the predicted clean latents with weights min(SNR, 5)",
    method: |inputs, model| measure(inputs, model, Space::MinSnr, MIN_SNR.name),
    prominence: Prominence::Table,
};

impl Metric for OutputLoss {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        self.summary
    }

    fn unit(&self) -> &'static str {
        ""
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn method(&self) -> Method {
        Method::Network(self.method)
    }

    fn prominence(&self) -> Prominence {
        self.prominence
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Points]
    }
}

fn measure(
    inputs: &NetworkInputs<'_>,
    model: &InMemory,
    space: Space,
    metric: &'static str,
) -> Result<Vec<f64>, MetricError> {
    let (points, teacher) =
        inputs.points.as_ref().ok_or(MetricError::Needs { metric, need: Need::Points })?;
    let squares = model.squares(points, teacher, inputs.batch)?;
    let weights = space.weights(points, inputs.schedule)?;
    Ok(squares.iter().zip(weights).map(|(square, weight)| square * weight).collect())
}
