//! How a batch is divided among ranks, and each part into pieces that fit into memory.

use super::error::DistillError;
use super::parameters::DistillParameters;

impl DistillParameters {
    /// The number of pieces of a batch that each of `ranks` processes trains with: the fewest that divide the batch evenly
    /// and are no larger than `gradient-accumulation` asks for.
    pub fn pieces(&self, ranks: usize) -> Result<usize, DistillError> {
        let (batch, least) = (self.batch_size.get(), self.gradient_accumulation.get().div_ceil(ranks));
        let pieces = (least..=batch).find(|pieces| batch.is_multiple_of(pieces * ranks));
        pieces.ok_or(DistillError::Uneven { batch, ranks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Whole;

    #[test]
    fn a_batch_is_divided_evenly_and_in_pieces_no_larger_than_asked() -> Result<(), DistillError> {
        for (batch, accumulation, ranks, expected) in [
            (8, 1, 1, 1),
            (8, 4, 1, 4),
            (8, 1, 2, 1),
            (8, 4, 2, 2),
            (12, 3, 2, 2),
            (12, 4, 3, 2),
            (6, 6, 2, 3),
        ] {
            let parameters = DistillParameters {
                batch_size: Whole::new(batch),
                gradient_accumulation: Whole::new(accumulation),
                ..Default::default()
            };
            assert_eq!(parameters.pieces(ranks)?, expected, "{batch}, {accumulation}, {ranks}");
        }
        let parameters = DistillParameters { batch_size: Whole::new(6), ..Default::default() };
        let error = parameters.pieces(4).expect_err("four ranks").to_string();
        assert_eq!(error, "`batch-size` is 6; 4 ranks need a multiple of 4");
        Ok(())
    }
}
