//! The optimum of a selection problem: the whole front where losses add under one budget, else branch and bound.

mod branch;
mod choice;
mod convex;
mod front;
mod improve;
mod knapsack;
mod multipliers;
mod relaxation;

pub(super) use choice::{Choice, both, either};
pub use front::Front;
pub(super) use knapsack::{Knapsack, NAME, bound, optimum};
