//! Training of a U-Net, whatever its loss: forward and backward pass in segments, the optimiser, and who watches.

mod activation_checkpointing;
mod network;
mod optimiser;
mod pass;
mod settings;
pub mod watch;

pub use activation_checkpointing::ActivationCheckpointing;
pub use network::Trainable;
pub use optimiser::{Average, Moments, Optimiser, Update};
pub use pass::{Input, Loss};
pub use settings::TrainingSettings;
