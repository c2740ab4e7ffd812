//! Why a model cannot be exported.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::base::{FileError, UnitId};
use crate::model::ModelError;
use crate::model::files::weights::WeightsError;
use crate::prune::write_error::WriteError;

/// A model that cannot be exported.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ExportError {
    /// The target program does not support this U-Net.
    #[error("{reason}")]
    #[diagnostic(
        code(export::unrecognised),
        help(
            "to write the file anyway, add `--allow-unrecognised`, or `allow-unrecognised: true` in a pipeline"
        )
    )]
    Unrecognised {
        /// What the program does not support.
        reason: String,
    },
    /// No U-Net that the program builds contains the pruned one.
    #[error("no U-Net that `{format}` can load contains this one")]
    #[diagnostic(
        code(export::no_target),
        help("export it as `diffusers-code`, which can hold any pruned U-Net")
    )]
    NoTarget {
        /// The format.
        format: &'static str,
    },
    /// The format has no place for linear maps.
    #[error("`{unit}` has a linear map in its place, for which `{format}` has no module")]
    #[diagnostic(
        code(export::linear_maps),
        help(
            "export it as `diffusers-code`, or reconstruct the model without `linear` in `kinds`: the programs' own ResNets \
             have a 1x1 convolution only where their width changes"
        )
    )]
    LinearMap {
        /// The unit.
        unit: UnitId,
        /// The format.
        format: &'static str,
    },
    /// The written model does not compute the same as its source.
    #[error("predictions of {} differ from those of the model it was made from: relative error {error:.1e}, expected at most {allowed:.0e}", path.display())]
    #[diagnostic(
        code(export::self_check),
        help("this is a bug in laptop-diff; please report it with the model's config.json")
    )]
    SelfCheck {
        /// What was written, and removed again.
        path: PathBuf,
        /// Relative L2 distance of the predictions.
        error: f64,
        /// The largest distance that rounding explains.
        allowed: f64,
    },
    /// A LoRA names a layer that the U-Net never had.
    #[error("`{key}` in {} names no layer of this U-Net", path.display())]
    #[diagnostic(
        code(export::lora_layer),
        help(
            "a LoRA of the model before pruning is needed: one for another family does not fit, and one that was trained on \
             this model needs no new names"
        )
    )]
    LoraLayer {
        /// The file.
        path: PathBuf,
        /// The tensor.
        key: String,
    },
    /// A LoRA whose layers have the right names and other sizes.
    #[error("`{key}` in {} reads {found} channels, but its layer has {needed}", path.display())]
    #[diagnostic(code(export::lora_width), help("the LoRA was made for a model of another family"))]
    LoraWidth {
        /// The file.
        path: PathBuf,
        /// The tensor.
        key: String,
        /// Its width.
        found: usize,
        /// The width of the layer's input.
        needed: usize,
    },
    /// A LoRA with two spellings of one layer.
    #[error("`{key}` and `{other}` in {} are the same layer", path.display())]
    #[diagnostic(code(export::lora_twice), help("keep one of the two spellings in the file"))]
    LoraTwice {
        /// The file.
        path: PathBuf,
        /// One tensor.
        key: String,
        /// The other.
        other: String,
    },
    /// The prediction could not be computed.
    #[error("cannot run the written model: {0}")]
    #[diagnostic(code(export::compute))]
    Compute(#[from] candle_core::Error),
    /// The model cannot be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Write(Box<WriteError>),
}

impl From<ModelError> for ExportError {
    fn from(error: ModelError) -> Self {
        WriteError::from(error).into()
    }
}

impl From<WeightsError> for ExportError {
    fn from(error: WeightsError) -> Self {
        WriteError::from(error).into()
    }
}

impl From<FileError> for ExportError {
    fn from(error: FileError) -> Self {
        WriteError::from(error).into()
    }
}

impl From<WriteError> for ExportError {
    fn from(error: WriteError) -> Self {
        Self::Write(Box::new(error))
    }
}
