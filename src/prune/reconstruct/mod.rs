//! Reconstruction after removal: linear layers of the pruned U-Net are solved anew, so that its state follows the teacher's.
//!
//! Ours; closed form, training-free. The student is walked in order. At the end of a step, its state
//! should be the teacher's just before what the student does next. A linear layer whose output is added there can make up
//! for a part of the difference: least squares over calibration points, with a ridge towards the present weights. The walk
//! then goes on with the new weights. A target never lies across a skip connection, because storing a skip is a step too.
//! On request, a linear map is put in place of removed units, which adds parameters, and solved like the other layers.
//!
//! Relatives: channel pruning has reconstructed layers since ThiNet (Luo et al. 2017); OBS-Diff (2026) compensates inside a
//! layer; ReplaceMe (2025) folds a linear map into a neighbour in language models.

mod error;
mod kept_layers;
mod places;
mod record;
mod ridge;
mod run;
mod walk;
mod work;

pub use error::ReconstructError;
pub use record::{FILE, LayerRecord, Reconstruction};
pub use work::Reconstructing;
