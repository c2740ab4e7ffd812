//! The weights of the terms in the loss: those of the parameters, times those that are measured before training.

use serde::{Deserialize, Serialize};

use super::losses::Normalisation;
use super::parameters::DistillParameters;

/// What was measured before training. f32 survives JSON unchanged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measured {
    /// Of the task loss.
    pub(super) task: f32,
    /// Of the output loss.
    pub(super) output: f32,
    /// `a_l` of each compared feature map, by its path in the student.
    pub(super) features: Vec<(String, f32)>,
}

impl Measured {
    /// From the mean square of the teacher's map at each path, and the terms before training.
    pub(super) fn new(
        normalisation: Normalisation,
        paths: &[String],
        squares: &[f64],
        terms: &[f64],
    ) -> Self {
        let features = normalisation.weights(squares, &terms[2..]);
        Self {
            task: normalisation.weight_of_term(terms[0]),
            output: normalisation.weight_of_term(terms[1]),
            features: paths.iter().cloned().zip(features).collect(),
        }
    }
}

/// One number for each kind of loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ByKind {
    /// Of the task loss.
    pub task: f32,
    /// Of the output loss.
    pub output: f32,
    /// Of the losses of all feature maps together.
    pub features: f32,
}

/// The factors of the [`terms`](super::losses::terms), in their order.
pub(super) struct TermWeights(Vec<f32>);

impl TermWeights {
    pub(super) fn new(parameters: &DistillParameters, measured: &Measured) -> Self {
        let times = |weight: f64, measured: f32| (weight * f64::from(measured)) as f32;
        let features = measured.features.iter().map(|(_, a)| times(parameters.feature_weight.get(), *a));
        let task = times(parameters.task_weight.get(), measured.task);
        let output = times(parameters.output_weight.get(), measured.output);
        Self([task, output].into_iter().chain(features).collect())
    }

    /// Divided by the number of pieces of a batch.
    pub(super) fn divided(&self, pieces: usize) -> Vec<f32> {
        self.0.iter().map(|weight| weight / pieces as f32).collect()
    }

    /// The terms times their weights, summed by kind.
    pub(super) fn weighted(&self, terms: &[f32]) -> ByKind {
        let [task, output, features] = self.sums(terms).map(|sum| sum as f32);
        ByKind { task, output, features }
    }

    /// The sum of all terms times their weights.
    pub(super) fn total(&self, terms: &[f32]) -> f32 {
        self.sums(terms).iter().sum::<f64>() as f32
    }

    fn sums(&self, terms: &[f32]) -> [f64; 3] {
        let products = terms.iter().zip(&self.0).map(|(term, weight)| f64::from(*term) * f64::from(*weight));
        let mut sums = [0.0; 3];
        products.enumerate().for_each(|(index, product)| sums[index.min(2)] += product);
        sums
    }
}

/// Weights that leave one kind of loss: task, output or features.
pub(super) fn only(kind: usize, weights: &[f32]) -> Vec<f32> {
    let of = |index: usize| index.min(2);
    weights.iter().enumerate().map(|(index, weight)| if of(index) == kind { *weight } else { 0.0 }).collect()
}

/// The name of the term of this index, given the paths of the feature maps.
pub(super) fn term(index: usize, paths: &[String]) -> String {
    match index {
        0 => "task loss".to_owned(),
        1 => "output loss".to_owned(),
        _ => format!("feature loss of {}", paths[index - 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Real;

    #[test]
    fn weights_multiply_and_add_up_by_kind() {
        let parameters = DistillParameters {
            task_weight: Real::new(1.0),
            output_weight: Real::new(10.0),
            feature_weight: Real::new(2.0),
            ..Default::default()
        };
        let features = vec![("down_blocks.0".to_owned(), 0.5), ("mid_block".to_owned(), 0.25)];
        let weights = TermWeights::new(&parameters, &Measured { task: 4.0, output: 1.0, features });
        assert_eq!(weights.divided(2), [2.0, 5.0, 0.5, 0.25]);
        let terms = [5.0, 2.0, 8.0, 4.0];
        assert_eq!(weights.weighted(&terms), ByKind { task: 20.0, output: 20.0, features: 10.0 });
        assert_eq!(weights.total(&terms), 50.0);
        assert_eq!(only(2, &weights.divided(1)), [0.0, 0.0, 1.0, 0.5]);
        assert_eq!(only(0, &weights.divided(1)), [4.0, 0.0, 0.0, 0.0]);
    }
}
