//! Notices that a training diverges: its loss stays far above what it was.
//!
//! A single loss says little: with small batches, it depends on the timesteps drawn. Ten times the median is far outside
//! of that (in the 400 steps of `pipelines/nano50.yaml` with 16 samples, no total is above 1.4 times the median of the
//! hundred before it, 2026-11), and twenty such steps in a row are no accident.

use std::collections::VecDeque;

use crate::base::median;

/// How many times the median is suspicious.
const FACTOR: f64 = 10.0;

/// Over how many losses the median is taken.
const WINDOW: usize = 100;

/// How many losses must be known before one can be suspicious.
const LEAST: usize = 20;

/// How many suspicious losses in a row are a divergence.
const STEPS: usize = 20;

/// Watches the total loss.
#[derive(Default)]
pub(super) struct Divergence {
    /// The last losses that were not suspicious.
    window: VecDeque<f64>,
    suspicious: usize,
}

impl Divergence {
    /// Continues after these losses.
    pub(super) fn after(totals: impl IntoIterator<Item = f32>) -> Self {
        let mut divergence = Self::default();
        for total in totals {
            divergence.push(total);
        }
        divergence
    }

    /// Takes the next loss; returns the median that it was compared with if the training has diverged.
    pub(super) fn push(&mut self, total: f32) -> Option<f64> {
        let total = f64::from(total);
        let median = (self.window.len() >= LEAST).then(|| median(&Vec::from(self.window.clone())));
        // From a loss of zero, every step leads up.
        if let Some(median) = median.filter(|median| *median > 0.0)
            && total > FACTOR * median
        {
            self.suspicious += 1;
            return (self.suspicious >= STEPS).then_some(median);
        }
        self.suspicious = 0;
        self.window.push_back(total);
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
        None
    }

    /// Whether the last loss was suspicious: no checkpoint is written then, so that the last one is sound.
    pub(super) fn is_suspicious(&self) -> bool {
        self.suspicious > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Random;

    /// Losses that fall by themselves, each times e to the power of a normal number.
    fn losses(spread: f32, count: usize) -> Vec<f32> {
        let random = Random::new(1, "losses");
        let normal = random.normal("loss", 0, &[count], &candle_core::Device::Cpu);
        let normal = normal.and_then(|numbers| numbers.to_vec1::<f32>()).expect("plain numbers");
        normal.iter().enumerate().map(|(step, z)| (spread * z).exp() / (1.0 + step as f32 / 50.0)).collect()
    }

    #[test]
    fn noisy_losses_that_fall_are_no_divergence() {
        for spread in [0.1, 1.0, 2.5] {
            let mut divergence = Divergence::default();
            let found = losses(spread, 20_000).into_iter().filter_map(|total| divergence.push(total)).count();
            assert_eq!(found, 0, "spread {spread}");
        }
    }

    #[test]
    fn a_loss_that_stays_high_is_found_after_twenty_steps_and_suspected_at_once() {
        let calm = losses(0.3, 200);
        let mut divergence = Divergence::after(calm.iter().copied());
        assert!(!divergence.is_suspicious());
        let high = 50.0 * calm[0];
        for step in 1..20 {
            assert_eq!(divergence.push(high), None, "step {step}");
            assert!(divergence.is_suspicious());
        }
        assert!(divergence.push(high).is_some_and(|median| median < 1.0));
        assert_eq!(divergence.push(calm[0]), None);
        assert!(!divergence.is_suspicious(), "a loss as before ends the suspicion");
    }
}
