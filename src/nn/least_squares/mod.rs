//! Least squares for the weights of a linear layer: sums over calibration points, and the change that removes most of what
//! the output lacks.

mod blocks;
mod change;
mod normal;

pub use change::{Change, Layer};
pub use normal::Normal;
