//! Random numbers generated on the host, identical on every device and after every resume.
//!
//! A stream is identified by (pipeline seed, stage id, purpose, index): the blake3 hash of this name seeds ChaCha8. Two
//! draws with the same name are equal, so a resumed stage needs no saved generator state.

use candle_core::{Device, Result, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// The source of all streams of one stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Random {
    name: String,
}

impl Random {
    /// The streams of the stage `stage` in a pipeline with this seed.
    pub fn new(seed: u64, stage: &str) -> Self {
        Self { name: format!("{seed}\0{stage}") }
    }

    /// The stream for one purpose and index.
    pub fn stream(&self, purpose: &str, index: u64) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(
            *blake3::hash(format!("{}\0{purpose}\0{index}", self.name).as_bytes()).as_bytes(),
        )
    }

    /// Standard normal numbers of the given shape, f32.
    pub fn normal(&self, purpose: &str, index: u64, shape: &[usize], device: &Device) -> Result<Tensor> {
        let stream = self.stream(purpose, index);
        let numbers: Vec<f32> = StandardNormal.sample_iter(stream).take(shape.iter().product()).collect();
        Tensor::from_vec(numbers, shape, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_its_full_name() -> Result<()> {
        let draw = |random: &Random, purpose: &str, index| -> Result<Vec<f32>> {
            random.normal(purpose, index, &[4], &Device::Cpu)?.to_vec1()
        };
        let random = Random::new(1, "points");
        assert_eq!(draw(&random, "noise", 0)?, draw(&random, "noise", 0)?);
        assert_ne!(draw(&random, "noise", 0)?, draw(&random, "noise", 1)?);
        assert_ne!(draw(&random, "noise", 0)?, draw(&random, "timestep", 0)?);
        assert_ne!(draw(&random, "noise", 0)?, draw(&Random::new(2, "points"), "noise", 0)?);
        Ok(())
    }
}
