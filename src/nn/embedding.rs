//! Sinusoidal embedding of timesteps (and of SDXL's sizes and crop coordinates). Vaswani et al. 2017, section 3.5;
//! order and frequency shift as in diffusers' `get_timestep_embedding`.

use candle_core::{DType, Result, Tensor};

/// The longest period of the sinusoids.
const MAX_PERIOD: f32 = 10_000.0;

/// Embeds each number of `timestep` `[n]` as `dim` sines and cosines -> [n, dim], always in f32.
///
/// Half precision rounds timesteps above 256, so models cast the *result*. The sines come first unless
/// `flip_sin_to_cos` is set; an odd `dim` ends with a zero.
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Values of diffusers 0.42.1 with torch 2.11.0; sine and cosine of 999 may differ by rounding.
    #[test]
    fn agrees_with_diffusers() -> Result<()> {
        let check = |timesteps: &[f32], dim, flip, shift, wanted: &[f32]| -> Result<()> {
            let timesteps = Tensor::new(timesteps, &Device::Cpu)?;
            let found = timestep_embedding(&timesteps, dim, flip, shift)?;
            assert_eq!(found.dims(), [wanted.len() / dim, dim]);
            for (found, wanted) in found.flatten_all()?.to_vec1::<f32>()?.iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-5, "{found}, needed {wanted}");
            }
            Ok(())
        };
        #[rustfmt::skip]
        check(&[0.0, 1.0, 999.0], 6, true, 0.0, &[
            1.0, 1.0, 1.0, 0.0, 0.0, 0.0,
            0.540_302_34, 0.998_922_94, 0.999_997_7, 0.841_470_96, 0.046_399_23, 0.002_154_433_2,
            0.999_649_8, -0.728_673_34, -0.549_264_67, -0.026_460_752, 0.684_861_4, 0.835_648_5,
        ])?;
        #[rustfmt::skip]
        check(&[1.0, 999.0], 5, false, 1.0, &[
            0.841_470_96, 9.999_999e-5, 0.540_302_34, 1.0, 0.0,
            -0.026_460_752, 0.099_733_91, 0.999_649_8, 0.995_014_13, 0.0,
        ])?;
        Ok(())
    }
}
