//! The objective that a selection minimises: the sum of scores, or `1' G 1`.

use crate::base::names::{self, UnknownName};
use crate::score::{Scores, UnitScores};
use crate::select::error::SelectError;

/// A row of [`OBJECTIVES`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ObjectiveInfo {
    /// What a pipeline file calls it.
    pub name: &'static str,
    /// One line for `laptop-diff list`.
    pub summary: &'static str,
    /// The share of `1' G 1` in the objective; the rest is the sum of scores.
    pub gram: f64,
}

/// Every objective; the first is the default.
pub const OBJECTIVES: &[ObjectiveInfo] = &[
    ObjectiveInfo { name: "additive", summary: "the sum of scores, as in the paper", gram: 0.0 },
    ObjectiveInfo {
        name: "gram",
        summary: "1' G 1 with the Gram matrix of the units' effects, which counts how they add up or cancel",
        gram: 1.0,
    },
];

impl ObjectiveInfo {
    /// The objective of this name.
    pub fn find(name: &str) -> Result<&'static Self, UnknownName> {
        names::find("objective", OBJECTIVES, |objective| objective.name, name)
    }
}

/// `(1 - gram) * (sum of the criterion's scores) + gram * 1' G 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective<'a> {
    /// The criterion whose scores are summed.
    pub criterion: &'a str,
    /// The share of the Gram matrix, from 0 to 1.
    pub gram: f64,
}

impl Objective<'_> {
    /// The loss of removing one unit.
    pub(in crate::select) fn loss(&self, scores: &Scores, unit: &UnitScores) -> Result<f64, SelectError> {
        let criterion = self.criterion.to_owned();
        let loss = scores.of(unit, self.criterion).ok_or_else(|| SelectError::UnknownCriterion {
            name: criterion.clone(),
            known: scores.criteria.join(", "),
        })?;
        if !loss.is_finite() {
            return Err(SelectError::NotFinite { unit: unit.id.clone(), criterion, loss });
        }
        // Without the multiplication, a plain sum of scores keeps the exact bits of the scores.
        Ok(if self.gram == 0.0 { loss } else { (1.0 - self.gram) * loss })
    }

    /// The joint losses of pairs of units, row by row; empty if losses simply add.
    pub(in crate::select) fn gram(&self, scores: &Scores) -> Result<Vec<f64>, SelectError> {
        if self.gram == 0.0 {
            return Ok(Vec::new());
        }
        let gram = scores.gram.as_ref().ok_or(SelectError::NoGram)?;
        let units = scores.units.len();
        let places = (0..units).flat_map(|row| (0..units).map(move |column| (row, column)));
        Ok(places.map(|(row, column)| self.gram * gram.at(row, column)).collect())
    }
}
