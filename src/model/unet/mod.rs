//! U-Nets of Stable Diffusion: their configuration and their list of steps.

mod assembly;
mod config;
mod counted;
mod embedding;
mod error;
mod flatten;
mod json;
mod keys;
mod load;
mod network;
mod original;
mod probe;
mod prune;
mod raw;

pub use assembly::{Assembly, KeptDepths, Layers, Origin};
pub use config::{Level, Mid, SIZES, TextTime, UNetConfig};
pub use counted::{Counted, Outputs};
pub use error::ConfigError;
pub use json::CLASS;
pub use network::UNet;
pub use probe::Probe;
pub use raw::unknown_keys;
