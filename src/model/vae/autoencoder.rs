//! The autoencoder between pictures and latents, of either class; each half is a list of layers.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::config::VaeConfig;
use super::kl;
use super::layer::{Layer, walk};
use super::tiling::{self, TileSide};
use super::tiny;
use crate::nn::activation_dtype;

/// Converts pictures to latents and back.
#[derive(Clone, Debug)]
pub struct Autoencoder {
    config: VaeConfig,
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    dtype: DType,
    tile: Option<TileSide>,
}

impl Autoencoder {
    /// Reads the weights; names are those of diffusers.
    pub fn new(config: &VaeConfig, vb: VarBuilder) -> Result<Self> {
        let dtype = activation_dtype(vb.dtype(), vb.device());
        let (encoder, decoder) = match config {
            VaeConfig::Kl(config) => (kl::encoder(config, &vb)?, kl::decoder(config, &vb)?),
            VaeConfig::Tiny(config) => (tiny::encoder(config, &vb)?, tiny::decoder(config, &vb)?),
        };
        Ok(Self { encoder, decoder, config: config.clone(), dtype, tile: None })
    }

    /// The same autoencoder, which splits inputs larger than `tile` into tiles; with `None` it processes everything at
    /// once.
    pub fn tiled(self, tile: Option<TileSide>) -> Self {
        Self { tile, ..self }
    }

    /// Its configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The number of pixels per latent pixel along one side.
    pub fn downscale(&self) -> usize {
        self.config.downscale()
    }

    /// Pictures [b, 3, h, w] in -1..1 -> latents [b, 4, h/8, w/8] of about unit variance. Uses the mean of the
    /// posterior: calibration and training need no second source of noise.
    pub fn encode(&self, pictures: &Tensor) -> Result<Tensor> {
        let moments = self.walk(&self.encoder, &pictures.to_dtype(self.dtype)?, self.downscale(), 1)?;
        moments.narrow(1, 0, self.config.latent_channels())?.contiguous()? * self.config.scaling_factor()
    }

    /// Latents [b, 4, h, w] of about unit variance -> pictures [b, 3, 8h, 8w], about -1..1, not clamped.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let latents = (latents.to_dtype(self.dtype)? / self.config.scaling_factor())?;
        self.walk(&self.decoder, &latents, 1, self.downscale())
    }

    /// Applies one half, in tiles if `x` is larger than a tile. A latent pixel corresponds to `before` pixels of `x`
    /// and `after` pixels of the result.
    fn walk(&self, half: &[Layer], x: &Tensor, before: usize, after: usize) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        match self.tile.map(TileSide::get) {
            Some(side) if height.max(width) > side * before => {
                tiling::by_tiles(x, side * before, side / 4 * after, |tile| walk(half, tile))
            }
            _ => walk(half, x),
        }
    }
}
