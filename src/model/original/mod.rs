//! Single-file checkpoints in the original layout (CompVis/latent-diffusion for SD 1.x and 2.x,
//! Stability-AI/generative-models for SDXL): U-Net, autoencoder and text encoders in one file without a
//! configuration. Names are paired once, in [`Pair`]s, for reading and for writing.

mod checkpoint;
mod detect;
mod draft;
mod text;
mod vae;

pub use checkpoint::Checkpoint;
pub use draft::Draft;
use text::SD2_BY_STABILITY;
pub use text::{TextLayout, TextPlace, text_names, text_places};
pub use vae::vae_names;

use super::weights::{Reading, Stored, Weights, WeightsError};

/// Where the U-Net is in a checkpoint.
pub const UNET: &str = "model.diffusion_model.";
/// Where the autoencoder is.
pub const VAE: &str = "first_stage_model.";
/// An SDXL checkpoint says by a tensor of this name that its U-Net predicts velocities.
pub const V_PREDICTION: &str = "v_pred";

/// One tensor of a checkpoint, and what diffusers or transformers call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its name in the checkpoint, without the prefix of its model.
    pub original: String,
    /// Its name elsewhere; several where the checkpoint stacks them along the first dimension.
    pub parts: Vec<String>,
    /// How the checkpoint has it.
    pub form: Form,
}

/// How a checkpoint has a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is elsewhere.
    Same,
    /// A linear layer as a 1x1 convolution.
    Convolution,
    /// Several as one.
    Stacked,
    /// A matrix with its rows as columns.
    Transposed,
}

impl Pair {
    /// A tensor that only has another name.
    pub fn same(original: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(original, name, Form::Same)
    }

    fn new(original: impl Into<String>, name: impl Into<String>, form: Form) -> Self {
        Self { original: original.into(), parts: vec![name.into()], form }
    }

    fn reading(&self, index: usize) -> Reading {
        match self.form {
            Form::Same => Reading::Whole,
            Form::Convolution => Reading::Linear,
            Form::Stacked => Reading::Part { index, of: self.parts.len() },
            Form::Transposed => Reading::Transposed,
        }
    }

    /// The tensor as the checkpoint is to have it, given its parts.
    pub fn draft<'a>(
        &self,
        part: impl Fn(&str) -> Result<Stored<'a>, WeightsError>,
    ) -> Result<Draft<'a>, WeightsError> {
        let parts = self.parts.iter().map(|name| part(name)).collect::<Result<Vec<_>, _>>()?;
        Ok(Draft::new(parts, self.form))
    }
}

/// The model at `prefix` of a checkpoint, by the names of diffusers.
fn read(checkpoint: &Weights, prefix: &str, pairs: &[Pair]) -> Weights {
    checkpoint.renamed(pairs.iter().flat_map(|pair| {
        let stored = format!("{prefix}{}", pair.original);
        let parts = pair.parts.iter().enumerate();
        parts.map(move |(index, name)| (name.clone(), stored.clone(), pair.reading(index)))
    }))
}
