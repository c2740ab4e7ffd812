//! Shapes that a selection may have to take: handcrafted layouts, and what other programs can load.

mod fit;
mod layout;
mod loader;

pub use fit::{FITS, Fit};
pub use layout::{LAYOUTS, Layout};
pub use loader::{ENCODERS, KnownDepths, SDCPP, encoder};
