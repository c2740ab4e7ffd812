//! One self-contained HTML page from one or more run folders.

pub mod chart;
pub mod unet;
