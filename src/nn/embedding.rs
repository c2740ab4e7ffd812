//! Sinusoidal embedding of timesteps (and of SDXL's size and crop numbers).
//! Vaswani et al. 2017, section 3.5; order and frequency shift as in diffusers' `get_timestep_embedding`.

use candle_core::{DType, Result, Tensor};

/// The longest period of the sinusoids.
const MAX_PERIOD: f32 = 10_000.0;

/// Embeds each number of `timestep` [n] as `dim` sines and cosines -> [n, dim], always in f32.
///
/// Half precisions round timesteps above 256, so models cast the *result*. The sines come first
/// unless `flip_sin_to_cos`; an odd `dim` ends with a zero.
pub fn timestep_embedding(
    timestep: &Tensor,
    dim: usize,
    flip_sin_to_cos: bool,
    downscale_freq_shift: f64,
) -> Result<Tensor> {
    let timestep = timestep.to_dtype(DType::F32)?; // [n]
    let (n, half) = (timestep.dim(0)?, dim / 2);
    let span = half as f32 - downscale_freq_shift as f32;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| {
            let exponent = -MAX_PERIOD.ln() * i as f32 / span;
            f64::from(exponent).exp() as f32
        })
        .collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), timestep.device())?;
    let angle = timestep.reshape((n, 1))?.broadcast_mul(&frequencies)?; // [n, dim/2]
    let (sin, cos) = (angle.sin()?, angle.cos()?);
    let embedding = if flip_sin_to_cos { Tensor::cat(&[cos, sin], 1)? } else { Tensor::cat(&[sin, cos], 1)? };
    embedding.pad_with_zeros(1, 0, dim - 2 * half)
}
