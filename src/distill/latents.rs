//! Where clean latents and their text come from: any number of rows, fetched by index.

use candle_core::{Device, Tensor};

use super::error::DistillError;
use crate::model::network::Conditioning;

/// Clean latents and what they show.
#[derive(Clone, Debug)]
pub struct LatentBatch {
    /// [batch, channels, height, width], f32, scaled as the U-Net sees them.
    pub latents: Tensor,
    /// The text states of the same rows.
    pub conditioning: Conditioning,
}

/// Clean latents by row. The training loop chooses the rows, the timesteps and the noise.
pub trait LatentSource: Sync {
    /// Number of rows, at least 1.
    fn rows(&self) -> usize;

    /// The given rows, each below [`LatentSource::rows`], on `device`.
    fn fetch(&self, rows: &[usize], device: &Device) -> Result<LatentBatch, DistillError>;

    /// The text states of the empty prompt, a batch of one, if they are known.
    fn unconditional(&self, device: &Device) -> Result<Option<Conditioning>, DistillError>;
}
