//! The model that is scored, and the check that it offers what the criteria require.

use super::error::ScoreError;
use super::need::Need;
use crate::backend::{Random, memory};
use crate::data::Calibration;
use crate::model::files::weights::Weights;
use crate::model::unet::UNet;
use crate::sample::NoiseSchedule;

/// The mean CLIP score of the pictures that a U-Net draws, with the same prompts and noise for every U-Net.
pub type ClipScore<'a> = dyn Fn(&UNet) -> Result<f64, ScoreError> + 'a;

/// A U-Net to be scored, and the resources that criteria may use.
#[derive(Clone, Copy)]
pub struct Teacher<'a> {
    /// The U-Net.
    pub unet: &'a UNet,
    /// Its weights on disk.
    pub weights: &'a Weights,
    /// The calibration points.
    pub points: &'a Calibration,
    /// The noise schedule that it was trained with.
    pub schedule: Option<&'a NoiseSchedule>,
    /// Draws pictures and scores them.
    pub clip_score: Option<&'a ClipScore<'a>>,
    /// The stage's random streams.
    pub random: &'a Random,
}

/// Bytes of weights and their gradients: four each.
pub fn gradient_bytes(parameters: u64) -> u64 {
    8 * parameters
}

impl Teacher<'_> {
    /// Fails if a need of a criterion cannot be met. Called before hours of work, not after.
    pub(super) fn check(&self, criterion: &'static str, need: Need) -> Result<(), ScoreError> {
        let available = match need {
            Need::Traversal => true,
            Need::Task | Need::Gradients => self.schedule.is_some(),
            Need::Pictures => self.clip_score.is_some(),
        };
        if !available {
            return Err(ScoreError::Needs { criterion, need });
        }
        match need {
            Need::Gradients => self.check_memory_for_gradients(criterion),
            _ => Ok(()),
        }
    }

    fn check_memory_for_gradients(&self, criterion: &'static str) -> Result<(), ScoreError> {
        // The budget is half of the memory.
        let needed = gradient_bytes(self.unet.parameters());
        let available = memory::budget(self.unet.device()).saturating_mul(2);
        match needed > available {
            true => Err(ScoreError::NoMemoryForGradients { criterion, needed, available }),
            false => Ok(()),
        }
    }
}
