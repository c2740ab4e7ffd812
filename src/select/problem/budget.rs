//! How much of a quantity a selection must remove.

use crate::select::error::SelectError;

/// A quantity of which a minimum amount must be removed.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// What it counts: `parameters`, `MACs`, `nanoseconds` or `bytes`.
    pub quantity: &'static str,
    /// The amount in each unit.
    pub weights: Vec<u64>,
    /// The amount in the whole U-Net.
    pub total: u64,
    /// The minimum amount to remove.
    pub needed: u64,
    /// The share of the total that was asked for; `needed` is the same in whole units.
    pub asked: f64,
}

impl Budget {
    /// At least the share `ratio` of `total` must be removed.
    pub fn share(quantity: &'static str, weights: Vec<u64>, total: u64, ratio: f64) -> Self {
        Self { quantity, weights, total, needed: (ratio * total as f64).ceil() as u64, asked: ratio }
    }

    /// The amount that a selection saves.
    pub fn saved(&self, named: &[bool]) -> u64 {
        self.weights.iter().zip(named).filter(|(_, named)| **named).map(|(weight, _)| weight).sum()
    }

    /// The share of the total that a selection saves.
    pub(in crate::select) fn reached(&self, named: &[bool]) -> f64 {
        self.saved(named) as f64 / self.total as f64
    }

    /// The amount that a selection saves beyond what is needed.
    pub(in crate::select) fn slack(&self, named: &[bool]) -> i128 {
        i128::from(self.saved(named)) - i128::from(self.needed)
    }

    /// At least `needed` of `total` must be removed.
    pub fn amount(quantity: &'static str, weights: Vec<u64>, total: u64, needed: u64) -> Self {
        Self { quantity, weights, total, needed, asked: needed as f64 / total as f64 }
    }

    /// Changes the amount that is needed.
    pub(in crate::select) fn ask(&mut self, needed: u64) {
        (self.needed, self.asked) = (needed, needed as f64 / self.total as f64);
    }

    /// Fails if more is needed than the `available` amount; the error says how much that is.
    pub fn check(&self, available: u64) -> Result<(), SelectError> {
        if self.needed <= available {
            return Ok(());
        }
        Err(SelectError::RatioUnreachable {
            ratio: self.asked,
            quantity: self.quantity,
            needed: self.needed,
            available,
            // Rounded down, so that the ratio in the message is reachable.
            reachable: (available as f64 / self.total as f64 * 1e3).floor() / 1e3,
        })
    }
}
