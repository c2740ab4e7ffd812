//! The training timesteps that a sampler visits. Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps
//! are Flawed", table 2, with diffusers' rounding.

use serde::{Deserialize, Serialize};

/// The spacing of timesteps, as `timestep_spacing` in a scheduler's config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Multiples of an integer stride starting at 0, then shifted by `steps_offset`.
    Leading,
    /// Integer strides counted down from the noisiest timestep.
    Trailing,
    /// Evenly spaced from 0 to the noisiest timestep, both included; not integers in general.
    Linspace,
}

impl Spacing {
    /// `count` of `train_timesteps` timesteps, noisiest first. `offset` applies only to `Leading`.
    pub(super) fn timesteps(self, train_timesteps: usize, count: usize, offset: usize) -> Vec<f64> {
        let (total, number) = (train_timesteps as f64, count as f64);
        let timestep = |index: usize| match self {
            Self::Leading => ((count - 1 - index) * (train_timesteps / count) + offset) as f64,
            Self::Trailing => (total - index as f64 * (total / number)).round_ties_even() - 1.0,
            // For one point, numpy returns the start, 0.
            Self::Linspace if count == 1 => 0.0,
            // As in numpy: multiples of a rounded stride, which must not end an ulp too high.
            Self::Linspace => {
                ((count - 1 - index) as f64 * ((total - 1.0) / (number - 1.0))).min(total - 1.0)
            }
        };
        (0..count).map(timestep).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Spacing::{Leading, Linspace, Trailing};

    #[test]
    fn four_of_a_thousand() {
        assert_eq!(Leading.timesteps(1000, 4, 1), [751.0, 501.0, 251.0, 1.0]);
        assert_eq!(Trailing.timesteps(1000, 4, 1), [999.0, 749.0, 499.0, 249.0]);
        assert_eq!(Linspace.timesteps(1000, 4, 1), [999.0, 666.0, 333.0, 0.0]);
    }
}
