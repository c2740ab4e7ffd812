//! Which rows a training never trains on, and the losses on them.

use candle_core::Tensor;

use super::batches::{Batches, TrainingBatch};
use super::error::DistillError;
use super::history::FeatureLoss;
use super::parameters::DistillParameters;
use super::term_weights::{Measured, TermWeights};
use super::validation::ValidationLine;
use crate::backend::Random;
use crate::data::order::shuffled;
use crate::model::unet::UNet;

/// The rows of some data, divided by the seed.
pub(super) struct Division {
    /// The rows that are trained on.
    pub(super) trained: Vec<usize>,
    /// The others.
    pub(super) held_out: Vec<usize>,
}

impl Division {
    pub(super) fn new(
        parameters: &DistillParameters,
        rows: usize,
        random: &Random,
    ) -> Result<Self, DistillError> {
        let count = parameters.validation.as_ref().map_or(0, |validation| validation.rows.get());
        if count == 0 {
            return Ok(Self { trained: (0..rows).collect(), held_out: Vec::new() });
        }
        if count >= rows {
            return Err(DistillError::HeldOut { asked: count, rows });
        }
        let mut held_out = shuffled(&mut random.stream("distill held-out rows", 0), rows);
        let mut trained = held_out.split_off(count);
        trained.sort_unstable();
        held_out.sort_unstable();
        Ok(Self { trained, held_out })
    }
}

impl Batches<'_> {
    /// The losses of a student on held-out rows: means over all of them. Neighbours of one shape go together.
    pub(super) fn validate(
        &self,
        student: &UNet,
        rows: &[usize],
        step: u64,
        measured: &Measured,
        weights: &TermWeights,
    ) -> Result<ValidationLine, DistillError> {
        let size = self.parameters.batch_size.get() / self.parameters.gradient_accumulation.get();
        let mut sums = vec![0f64; 2 + self.paths.len()];
        let (shapes, mut first) = (self.data.shapes(), 0);
        // A batch has one shape.
        let alike = rows.chunk_by(|one, other| shapes[*one] == shapes[*other]);
        for part in alike.flat_map(|rows| rows.chunks(size)) {
            let batch = self.held_out(part, first, rows.len())?;
            first += part.len();
            for (sum, term) in sums.iter_mut().zip(batch.terms(student, &self.paths)?.to_vec1::<f32>()?) {
                *sum += f64::from(term) * part.len() as f64;
            }
        }
        let terms: Vec<f32> = sums.iter().map(|sum| (sum / rows.len() as f64) as f32).collect();
        let maps = measured.features.iter().zip(&terms[2..]);
        let features = maps.map(|((path, weight), plain)| {
            (path.clone(), FeatureLoss { plain: *plain, weighted: weight * plain })
        });
        Ok(ValidationLine {
            step,
            task: terms[0],
            output: terms[1],
            features: features.collect(),
            weighted: weights.weighted(&terms),
            total: weights.total(&terms),
        })
    }

    /// A batch of some of `all` held-out rows, the first of them being that of index `first`: each with its own caption,
    /// noise and timestep, which do not change.
    fn held_out(&self, rows: &[usize], first: usize, all: usize) -> Result<TrainingBatch, DistillError> {
        let indices: Vec<u64> = (first..first + rows.len()).map(|index| index as u64).collect();
        let span = self.schedule.train_timesteps() as u64;
        // The middles of equal parts.
        let timesteps = indices.iter().map(|index| ((2 * index + 1) * span / (2 * all as u64)) as i64);
        let fetched = self.data.fetch(rows, self.device)?;
        let shape = &fetched.latents.dims()[1..];
        let noise = indices
            .iter()
            .map(|index| self.random.normal("distill validation noise", *index, shape, self.device));
        let noise = Tensor::stack(&noise.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        self.batch(&fetched.latents, fetched.conditioning, &noise, timesteps.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Whole;
    use crate::distill::validation_parameters::ValidationParameters;

    #[test]
    fn rows_are_divided_by_the_seed_and_none_is_lost() -> Result<(), DistillError> {
        let divided = |rows: u32, seed: u64| {
            let validation = Some(ValidationParameters { rows: Whole::new(rows), ..Default::default() });
            let parameters = DistillParameters { validation, ..Default::default() };
            Division::new(&parameters, 20, &Random::new(seed, "retrained"))
        };
        let division = divided(6, 1)?;
        assert_eq!(division.held_out.len(), 6);
        let mut all = [division.trained.clone(), division.held_out.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        assert_ne!(division.held_out, divided(6, 2)?.held_out);
        assert_eq!(divided(0, 1)?.trained, (0..20).collect::<Vec<_>>());
        assert!(matches!(divided(20, 1), Err(DistillError::HeldOut { asked: 20, rows: 20 })));
        Ok(())
    }
}
