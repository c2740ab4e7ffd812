//! The loss of the student: `L = l_task L_task + l_out L_out + l_feat sum_l a_l L_l`, all means over elements, in f32. In
//! `L_task` each sample can have a weight (min-SNR).
//!
//! Task, output and feature terms are those of BK-SDM (Kim et al. 2024). That the weights `a_l` should follow the
//! L2 norms of the teacher's feature maps, so that a few numerically large maps do not drown the rest, is the idea
//! of LAPTOP-Diff (Zhang et al. 2024); the two formulas for it and their common scale are ours.

use candle_core::{DType, Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::nn::mean_square_difference;

/// How the loss of each feature map is weighted: by the teacher's map `f`, or by what the loss is at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalisation {
    /// No weighting: large maps dominate.
    None,
    /// By 1 / sqrt(mean(f^2)).
    InverseNorm,
    /// By 1 / mean(f^2): every map's error counts relative to its own power.
    InverseSquareNorm,
    /// By the inverse of its own loss before training, and so the losses of task and output.
    #[default]
    InitialLoss,
}

impl Normalisation {
    /// The weights `a_l`, given for each map the teacher's mean square and the student's loss at the start.
    ///
    /// They are scaled so that the weighted sum of the starting losses equals the plain sum. Under `InitialLoss` that sum
    /// is 1. If all starting losses are zero (the student equals the teacher), the mean of the weights is 1.
    pub fn weights(self, mean_squares: &[f64], losses: &[f64]) -> Vec<f32> {
        let by =
            if self == Self::InitialLoss { touched(mean_squares, losses) } else { mean_squares.to_vec() };
        let largest = by.iter().fold(0.0, |a: f64, b| a.max(*b));
        let raw: Vec<f64> = by
            .iter()
            // Below 1e-8 of the largest value a map is only noise, and would get all the weight.
            .map(|value| value.max(largest * 1e-8).max(f64::MIN_POSITIVE))
            .map(|value| match self {
                Self::None => 1.0,
                Self::InverseNorm => value.sqrt().recip(),
                Self::InverseSquareNorm | Self::InitialLoss => value.recip(),
            })
            .collect();
        let plain: f64 = losses.iter().sum();
        let weighted: f64 = raw.iter().zip(losses).map(|(weight, loss)| weight * loss).sum();
        let start = if self == Self::InitialLoss { 1.0 } else { plain };
        let scale = if plain > 0.0 { start / weighted } else { raw.len() as f64 / raw.iter().sum::<f64>() };
        raw.iter().map(|weight| (weight * scale) as f32).collect()
    }

    /// The weight of the loss of task or output, given its value at the start.
    pub fn weight_of_term(self, loss: f64) -> f32 {
        if self == Self::InitialLoss && loss > 0.0 { loss.recip() as f32 } else { 1.0 }
    }
}

/// The part of the largest error, relative to a map's power, below which a map's error is only that of rounding: a teacher
/// in bf16 differs from its own weights in f32 by some 1e-5 of the power.
const ROUNDING: f64 = 1e-4;

/// The starting losses. A map before the first removed unit has none, or that of rounding, and gets one as if its error
/// relative to its power were the largest.
fn touched(mean_squares: &[f64], losses: &[f64]) -> Vec<f64> {
    let relative = |(square, loss): (&f64, &f64)| if *square > 0.0 { loss / square } else { 0.0 };
    let largest = mean_squares.iter().zip(losses).map(relative).fold(0.0, f64::max);
    let of = |(square, loss): (&f64, &f64)| match relative((square, loss)) {
        error if error > ROUNDING * largest || *square == 0.0 => *loss,
        _ => square * largest,
    };
    mean_squares.iter().zip(losses).map(of).collect()
}

/// A U-Net's output for one batch.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Noise or velocity, [batch, channels, height, width].
    pub output: Tensor,
    /// Feature maps in the order of their paths.
    pub features: Vec<Tensor>,
}

/// The terms of the loss as one tensor [2 + maps], in the order task, output, features. `sample_weights` `[batch]` weight the
/// samples of the task loss.
pub fn terms(
    student: &Answer,
    teacher: &Answer,
    target: &Tensor,
    sample_weights: Option<&Tensor>,
) -> Result<Tensor> {
    let task = task(&student.output, target, sample_weights)?;
    let mut terms = vec![task, mean_square_difference(&student.output, &teacher.output)?];
    for (student, teacher) in student.features.iter().zip(&teacher.features) {
        terms.push(mean_square_difference(student, teacher)?);
    }
    Tensor::stack(&terms, 0)
}

/// The task loss of a prediction [batch, channels, height, width], a scalar. `sample_weights` `[batch]` weight the samples.
pub fn task(prediction: &Tensor, target: &Tensor, sample_weights: Option<&Tensor>) -> Result<Tensor> {
    let Some(weights) = sample_weights else { return mean_square_difference(prediction, target) };
    let (batch, ..) = target.dims4()?;
    let factors = weights.sqrt()?.reshape((batch, 1, 1, 1))?;
    let weighted = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.broadcast_mul(&factors);
    mean_square_difference(&weighted(prediction)?, &weighted(target)?)
}

/// mean(a^2) over all elements, a scalar in f32.
pub fn mean_square(a: &Tensor) -> Result<Tensor> {
    a.to_dtype(DType::F32)?.sqr()?.mean_all()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_weighted_sum_starts_at_the_plain_sum() {
        let (squares, losses) = ([4.0, 100.0], [1.0, 50.0]);
        assert_eq!(Normalisation::None.weights(&squares, &losses), [1.0, 1.0]);
        // Raw 1/4 and 1/100: weighted 0.25 + 0.5 = 0.75, plain 51, scale 68.
        assert_eq!(Normalisation::InverseSquareNorm.weights(&squares, &losses), [17.0, 0.68]);
        // Raw 1/2 and 1/10: weighted 0.5 + 5 = 5.5, scale 51 / 5.5.
        let weights = Normalisation::InverseNorm.weights(&squares, &losses);
        assert_eq!(weights, [(51.0 / 11.0) as f32, (51.0 / 55.0) as f32]);
        for normalisation in
            [Normalisation::None, Normalisation::InverseNorm, Normalisation::InverseSquareNorm]
        {
            let weights = normalisation.weights(&squares, &losses);
            let sum: f64 = weights.iter().zip(losses).map(|(weight, loss)| f64::from(*weight) * loss).sum();
            assert!((sum - 51.0).abs() < 1e-4, "{normalisation:?}: {sum}");
        }
    }

    #[test]
    fn no_loss_and_dead_maps_leave_finite_weights() {
        let weights = Normalisation::InverseSquareNorm.weights(&[1.0, 4.0], &[0.0, 0.0]);
        assert_eq!(weights, [1.6, 0.4]);
        for squares in [[0.0, 1.0], [0.0, 0.0]] {
            let weights = Normalisation::InverseSquareNorm.weights(&squares, &[0.5, 0.5]);
            assert!(weights.iter().all(|weight| weight.is_finite()), "{weights:?}");
        }
    }

    #[test]
    fn terms_on_known_numbers() -> Result<()> {
        let tensor = |numbers: [f32; 2]| Tensor::new(&numbers, &Device::Cpu);
        let student = Answer { output: tensor([1.0, 3.0])?, features: vec![tensor([0.0, 2.0])?] };
        let teacher = Answer { output: tensor([1.0, 1.0])?, features: vec![tensor([4.0, 2.0])?] };
        let terms = terms(&student, &teacher, &tensor([0.0, 0.0])?, None)?;
        assert_eq!(terms.to_vec1::<f32>()?, [5.0, 2.0, 8.0]);
        Ok(())
    }

    #[test]
    fn samples_of_the_task_loss_have_weights() -> Result<()> {
        let tensor = |numbers: [f32; 2]| Tensor::new(&numbers, &Device::Cpu)?.reshape((2, 1, 1, 1));
        let student = Answer { output: tensor([1.0, 3.0])?, features: Vec::new() };
        let teacher = Answer { output: tensor([1.0, 3.0])?, features: Vec::new() };
        let weights = Tensor::new(&[0.5f32, 4.0], &Device::Cpu)?;
        let terms = terms(&student, &teacher, &tensor([0.0, 1.0])?, Some(&weights))?.to_vec1::<f32>()?;
        assert!((terms[0] - (0.5 + 16.0) / 2.0).abs() < 1e-5 && terms[1] == 0.0, "{terms:?}");
        Ok(())
    }

    #[test]
    fn terms_divided_by_their_first_values_start_at_one() {
        let weights = Normalisation::InitialLoss.weights(&[4.0, 100.0], &[1.0, 50.0]);
        assert_eq!(weights, [0.5, 0.01]);
        // A map before the first removed unit, without and with rounding.
        for rounding in [0.0, 1e-5] {
            let weights = Normalisation::InitialLoss.weights(&[4.0, 100.0], &[rounding, 50.0]);
            assert!((weights[0] - 0.5).abs() < 1e-5 && (weights[1] - 0.02).abs() < 1e-6, "{weights:?}");
        }
        assert_eq!(Normalisation::InitialLoss.weight_of_term(0.25), 4.0);
        assert_eq!(Normalisation::InitialLoss.weight_of_term(0.0), 1.0);
        assert_eq!(Normalisation::None.weight_of_term(0.25), 1.0);
    }
}
