//! Why a model cannot be written.

use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

use crate::model::ModelError;
use crate::model::files::weights::WeightsError;
use crate::model::network::PruneError;
use crate::select::SelectError;

/// A selection that cannot be applied, or a model that cannot be exported.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ExportError {
    /// The model cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// The selection names units that the teacher does not have.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Units(#[from] PruneError),
    /// The selection's layout is for another U-Net.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Layout(#[from] SelectError),
    /// The weights do not fit their configuration.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Weights(#[from] WeightsError),
    /// The program does not know such a U-Net.
    #[error("{reason}")]
    #[diagnostic(
        code(export::unrecognised),
        help(
            "to write it even so, for a program that you have changed, add `--allow-unrecognised`, or `allow-unrecognised: true` in a pipeline"
        )
    )]
    Unrecognised {
        /// Why.
        reason: String,
    },
    /// No U-Net that the program builds holds the pruned one.
    #[error("no U-Net that `{format}` can load holds this one")]
    #[diagnostic(code(prune::no_target), help("export it as `diffusers-code`, which holds everything"))]
    NoTarget {
        /// The format.
        format: &'static str,
    },
    /// What was written is not what was meant.
    #[error("{} predicts something else than the model it was made from: relative error {error:.1e}, at most {allowed:.0e} was expected", path.display())]
    #[diagnostic(
        code(prune::self_check),
        help("do not use the file; please report this with the model's config.json")
    )]
    SelfCheck {
        /// What was written.
        path: PathBuf,
        /// Relative L2 distance of the predictions.
        error: f64,
        /// What rounding explains.
        allowed: f64,
    },
    /// The prediction could not be computed.
    #[error("cannot compute with what was written: {0}")]
    #[diagnostic(code(prune::compute))]
    Compute(#[from] candle_core::Error),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(prune::file))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl ExportError {
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
