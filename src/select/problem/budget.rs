//! What a selection must save, in the budget's own unit.

use crate::select::error::SelectError;

/// A quantity of which enough must go.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// What it counts: `parameters`, `MACs`, `nanoseconds` or `bytes`.
    pub quantity: &'static str,
    /// What each unit saves.
    pub weights: Vec<u64>,
    /// What the whole U-Net has.
    pub total: u64,
    /// What must go at least.
    pub needed: u64,
    /// The share of the total that was asked for; `needed` is it in whole numbers.
    pub asked: f64,
}

impl Budget {
    /// At least the share `ratio` of `total` must go.
    pub fn share(quantity: &'static str, weights: Vec<u64>, total: u64, ratio: f64) -> Self {
        Self { quantity, weights, total, needed: (ratio * total as f64).ceil() as u64, asked: ratio }
    }

    /// What a selection saves.
    pub fn saved(&self, named: &[bool]) -> u64 {
        self.weights.iter().zip(named).filter(|(_, named)| **named).map(|(weight, _)| weight).sum()
    }

    /// The share of the total that a selection saves.
    pub(in crate::select) fn reached(&self, named: &[bool]) -> f64 {
        self.saved(named) as f64 / self.total as f64
    }

    /// What a selection saves beyond what it must.
    pub(in crate::select) fn slack(&self, named: &[bool]) -> i128 {
        i128::from(self.saved(named)) - i128::from(self.needed)
    }

    /// At least `needed` of `total` must go.
    pub fn amount(quantity: &'static str, weights: Vec<u64>, total: u64, needed: u64) -> Self {
        Self { quantity, weights, total, needed, asked: needed as f64 / total as f64 }
    }

    /// Asks for another amount.
    pub(in crate::select) fn ask(&mut self, needed: u64) {
        (self.needed, self.asked) = (needed, needed as f64 / self.total as f64);
    }

    /// Fails where only `available` can go, and says how much that is.
    pub fn check(&self, available: u64) -> Result<(), SelectError> {
        if self.needed <= available {
            return Ok(());
        }
        Err(SelectError::RatioUnreachable {
            ratio: self.asked,
            quantity: self.quantity,
            needed: self.needed,
            available,
            // Rounded down, so that what the message says can be asked for.
            reachable: (available as f64 / self.total as f64 * 1e3).floor() / 1e3,
        })
    }
}
