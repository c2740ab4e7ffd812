//! Training of a U-Net, whatever its loss: forward and backward pass in segments, the optimiser, several ranks, and who
//! watches.

mod activation_checkpointing;
mod cards;
pub mod collective;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod emulated;
mod error;
mod gathered;
mod network;
mod optimiser;
mod pass;
mod settings;
mod shards;
mod step_cost;
pub mod watch;

pub use activation_checkpointing::ActivationCheckpointing;
pub use error::TrainError;
pub use gathered::{Fetched, Held, gather, release, serve};
pub use network::Trainable;
pub use optimiser::{Average, Moments, Optimiser, Update};
pub use pass::{Input, Loss};
pub use settings::TrainingSettings;
pub use shards::Shards;
pub use step_cost::step_cost;
