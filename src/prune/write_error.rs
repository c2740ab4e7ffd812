//! Why the U-Net of a model cannot be written.

use miette::Diagnostic;

use crate::base::FileError;
use crate::model::ModelError;
use crate::model::files::weights::WeightsError;

/// A model that cannot be read, or a U-Net that cannot be written.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum WriteError {
    /// The model cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// The weights do not match their configuration.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Weights(#[from] WeightsError),
    /// A file cannot be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
}
