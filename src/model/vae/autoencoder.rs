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
        let scale = self.downscale() / before;
        let at_once = |x: &Tensor| {
            let (_, _, height, width) = x.dims4()?;
            let pictures = self.config.pictures_at_once(height * scale * width * scale);
            by_pictures(x, pictures, |part| walk(half, part))
        };
        match self.tile.map(TileSide::get) {
            Some(side) if height.max(width) > side * before => {
                tiling::by_tiles(x, side * before, side / 4 * after, at_once)
            }
            _ => at_once(x),
        }
    }
}

/// Applies `half` to so many pictures at a time.
fn by_pictures(x: &Tensor, at_once: usize, half: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let batch = x.dim(0)?;
    if batch <= at_once {
        return half(x);
    }
    let starts = (0..batch).step_by(at_once);
    let part = |start: usize| half(&x.narrow(0, start, at_once.min(batch - start))?.contiguous()?);
    Tensor::cat(&starts.map(part).collect::<Result<Vec<_>>>()?, 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{Device, Var};
    use candle_nn::{VarBuilder, VarMap};

    use super::*;
    use crate::backend::Random;
    use crate::model::vae::KlConfig;

    #[test]
    fn pictures_come_out_the_same_one_by_one() -> Result<()> {
        let config = serde_json::json!({ "block_out_channels": [8, 8], "norm_num_groups": 4 });
        let config: KlConfig = serde_json::from_value(config).expect("the rest has defaults");
        let config = VaeConfig::Kl(config);
        let made = VarMap::new();
        Autoencoder::new(&config, VarBuilder::from_varmap(&made, DType::F32, &Device::Cpu))?;
        let random = Random::new(3, "vae");
        let weights = made.data().lock().expect("nothing panics").clone();
        let draw = |(name, weight): (&String, &Var)| {
            let drawn = random.normal(name, 0, weight.dims(), &Device::Cpu)? * 0.2;
            Ok((name.clone(), drawn?))
        };
        let weights = weights.iter().map(draw).collect::<Result<HashMap<_, _>>>()?;
        let vae = Autoencoder::new(&config, VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu))?;
        let latents = random.normal("latents", 0, &[5, 4, 6, 6], &Device::Cpu)?;
        let decode = |at_once| {
            let pictures = by_pictures(&latents, at_once, |part| walk(&vae.decoder, part))?;
            pictures.flatten_all()?.to_vec1::<f32>()
        };
        let whole = decode(5)?;
        assert_eq!(decode(1)?, whole);
        assert_eq!(decode(2)?, whole);
        Ok(())
    }
}
