//! The Gram matrix of the units' effects: `G_ij = E mean(d_i d_j)`, where `d_i` is the change of the noise prediction when
//! unit `i` is removed.
//!
//! To first order the effects add, so removing a set `R` costs `1' G 1` over `R`: the sum of the single losses plus the
//! interactions of pairs. The diagonal is the output loss. (The matrix is ours, not the paper's.)

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};

use super::doubles;
use crate::base::UnitId;

const TENSOR: &str = "gram";

/// A symmetric matrix over the units of `scores.json`, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct Gram {
    units: Vec<UnitId>,
    /// Row by row, `[units, units]`.
    values: Vec<f64>,
}

impl Gram {
    /// A matrix given row by row.
    pub fn new(units: Vec<UnitId>, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), units.len() * units.len(), "BUG: the Gram matrix is not square");
        Self { units, values }
    }

    /// The units of its rows.
    pub fn units(&self) -> &[UnitId] {
        &self.units
    }

    /// `G_ij`.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.units.len() + column]
    }

    /// `1' G 1` over `removed`: the joint loss to first order.
    pub fn joint(&self, removed: &BTreeSet<UnitId>) -> f64 {
        let rows: Vec<_> = (0..self.units.len()).filter(|&row| removed.contains(&self.units[row])).collect();
        rows.iter().flat_map(|&row| rows.iter().map(move |&column| self.at(row, column))).sum()
    }

    /// The sum of the diagonal over `removed`: the joint loss if effects are orthogonal, as additivity assumes.
    pub fn additive(&self, removed: &BTreeSet<UnitId>) -> f64 {
        (0..self.units.len())
            .filter(|&row| removed.contains(&self.units[row]))
            .map(|row| self.at(row, row))
            .sum()
    }

    /// Reads `gram` [units, units] f64; `units` name the rows.
    pub fn open(path: &Path, units: Vec<UnitId>) -> io::Result<Self> {
        let invalid =
            |text: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {text}", path.display()));
        let bytes = std::fs::read(path)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| invalid(error.to_string()))?;
        let view = tensors.tensor(TENSOR).map_err(|error| invalid(error.to_string()))?;
        let needed = [units.len(), units.len()];
        if view.dtype() != Dtype::F64 || view.shape() != needed {
            let (dtype, shape) = (view.dtype(), view.shape());
            return Err(invalid(format!("`{TENSOR}` is {dtype:?} {shape:?}; it must be F64 {needed:?}")));
        }
        Ok(Self { units, values: doubles::values(&view) })
    }

    /// Writes the matrix.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let shape = vec![self.units.len(), self.units.len()];
        doubles::write(path, [(TENSOR, shape, self.values.as_slice())], HashMap::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_joint_loss_counts_pairs_twice_and_survives_the_disk() -> io::Result<()> {
        let units: Vec<UnitId> = ["a", "b", "c"].map(UnitId::from).into();
        let gram = Gram::new(units.clone(), vec![1.0, 0.5, 9.0, 0.5, 2.0, 9.0, 9.0, 9.0, 9.0]);
        let both = BTreeSet::from(["a", "b"].map(UnitId::from));
        assert_eq!(gram.joint(&both), 1.0 + 2.0 + 2.0 * 0.5);
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("gram.safetensors");
        gram.save(&path)?;
        assert_eq!(Gram::open(&path, units)?, gram);
        assert!(Gram::open(&path, vec!["a".into()]).is_err());
        Ok(())
    }
}
