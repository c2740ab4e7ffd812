//! The noise of a batch: one stream per sample and purpose, so that neither the batch size nor a resume changes it.

use candle_core::{Device, Result, Tensor};

use crate::backend::Random;

/// The source of noise for the samples of a batch.
#[derive(Clone, Copy)]
pub struct Noise<'a> {
    /// The streams.
    pub random: &'a Random,
    /// The samples of the batch, by the indices of their streams.
    pub samples: &'a [usize],
    /// Channels, height and width of one sample.
    pub latent: [usize; 3],
    /// The device of the tensors.
    pub device: &'a Device,
}

impl Noise<'_> {
    /// The initial noise of the trajectories: standard normal, [b, c, h, w] f32.
    pub fn initial(&self) -> Result<Tensor> {
        self.draw("initial noise")
    }

    /// The noise that an ancestral sampler adds at the end of leg `index`, of the same shape.
    pub fn fresh(&self, index: usize) -> Result<Tensor> {
        self.draw(&format!("noise of leg {index}"))
    }

    fn draw(&self, purpose: &str) -> Result<Tensor> {
        let [channels, height, width] = self.latent;
        let one = |&sample: &usize| {
            self.random.normal(purpose, sample as u64, &[1, channels, height, width], self.device)
        };
        Tensor::cat(&self.samples.iter().map(one).collect::<Result<Vec<_>>>()?, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_independent_of_the_batch_and_differs_per_leg() -> Result<()> {
        let random = Random::new(1, "points");
        let draw = |samples: &[usize]| -> Result<[Vec<f32>; 3]> {
            let noise = Noise { random: &random, samples, latent: [1, 2, 2], device: &Device::Cpu };
            let drawn = [noise.initial()?, noise.fresh(0)?, noise.fresh(1)?];
            let [initial, first, second] = drawn.map(|tensor| tensor.flatten_all()?.to_vec1());
            Ok([initial?, first?, second?])
        };
        let (both, alone) = (draw(&[3, 7])?, draw(&[7])?);
        for (both, alone) in both.iter().zip(&alone) {
            assert_eq!(both[4..], alone[..]);
            assert_ne!(both[..4], alone[..]);
        }
        assert!(alone[0] != alone[1] && alone[1] != alone[2]);
        Ok(())
    }
}
