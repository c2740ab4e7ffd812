//! What the weights of the terms are measured by before a training begins.

use super::batches::Batches;
use super::distillation::Distillation;
use super::error::DistillError;
use super::feature_maps::common_paths;
use super::losses;
use super::term_weights::{Measured, term};
use crate::base::Interrupted;

impl Distillation<'_> {
    /// The weights of the terms, measured on the first batches with the student before training.
    pub(super) fn measure(
        &self,
        batches: &mut Batches<'_>,
        rows: &[usize],
    ) -> Result<Measured, DistillError> {
        let mut order = self.order(rows);
        let own = self.own_pieces()?;
        let first = batches.piece(0, own.start, &mut order)?;
        let paths = common_paths(&first.input, self.student.unet(), self.teacher, self.parameters.features)?;
        if paths.is_empty() && self.parameters.feature_weight.get() > 0.0 {
            let reason = "they have no feature map in common".to_owned();
            return Err(DistillError::Mismatch { reason });
        }
        batches.paths = paths;
        // The mean squares of the teacher's maps, and all terms.
        let (mut squares, mut plain) = (vec![0.0; batches.paths.len()], vec![0.0; 2 + batches.paths.len()]);
        for step in 0..u64::from(self.parameters.normalisation_batches) {
            // There is no checkpoint yet: a later run measures again.
            if self.collective.any(self.interrupt.asked())? {
                return Err(Interrupted.into());
            }
            for piece in own.clone() {
                let batch = batches.piece(step, piece, &mut order)?;
                for (sum, map) in squares.iter_mut().zip(&batch.teacher.features) {
                    *sum += f64::from(losses::mean_square(map)?.to_scalar::<f32>()?);
                }
                let terms = batch.terms(self.student.unet(), &batches.paths)?.to_vec1::<f32>()?;
                for (sum, term) in plain.iter_mut().zip(terms) {
                    *sum += f64::from(term);
                }
            }
        }
        self.collective.sum(&mut squares)?;
        self.collective.sum(&mut plain)?;
        let pieces = (self.parameters.normalisation_batches.get() * batches.pieces) as f64;
        squares.iter_mut().chain(&mut plain).for_each(|sum| *sum /= pieces);
        if let Some(index) = plain.iter().position(|loss| !loss.is_finite()) {
            return Err(self.not_finite(0, term(index, &batches.paths), plain[index] as f32));
        }
        if let Some(index) = squares.iter().position(|square| !square.is_finite()) {
            let map = format!("mean square of the teacher's {}", batches.paths[index]);
            return Err(self.not_finite(0, map, squares[index] as f32));
        }
        Ok(Measured::new(self.parameters.normalisation, &batches.paths, &squares, &plain))
    }
}
