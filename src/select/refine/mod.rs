//! Selections improved by measuring their joint losses.

mod outcome;
mod portfolio;
mod proposals;
mod refiner;

pub use refiner::{Measure, Refiner};
