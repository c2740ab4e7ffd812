//! Why a model, or one of its parts, cannot be used.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::base::FileError;
use crate::model::ModelError;
use crate::sample::SampleError;

/// A model that cannot be used as it is.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SurveyError {
    /// A part cannot be read or is not supported.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// The noise schedule is not supported.
    #[error("{}: {error}", path.display())]
    #[diagnostic(forward(error))]
    Scheduler {
        /// The scheduler's configuration.
        path: PathBuf,
        /// What is wrong with it.
        error: SampleError,
    },
    /// Parts that do not belong together.
    #[error("the parts of {} do not fit together: {reason}", path.display())]
    #[diagnostic(
        code(survey::misfit),
        help("take both parts from the same model; if no stage needs them, leave their folders out")
    )]
    Misfit {
        /// The model.
        path: PathBuf,
        /// Which parts, and why.
        reason: String,
    },
    /// SDXL's refiner.
    #[error("{} is SDXL's refiner, which is not supported", path.display())]
    #[diagnostic(
        code(survey::refiner),
        help("give SDXL's base model; the refiner has another text encoder and another second condition")
    )]
    Refiner {
        /// The model.
        path: PathBuf,
    },
    /// A pipeline without a U-Net.
    #[error("{} is a {class}, which has no U-Net", path.display())]
    #[diagnostic(
        code(survey::pipeline),
        help(
            "only pipelines of Stable Diffusion 1.x, 2.x and SDXL are supported, whose networks are U-Nets"
        )
    )]
    Pipeline {
        /// The model.
        path: PathBuf,
        /// Its class in diffusers.
        class: String,
    },
    /// A folder around a single file.
    #[error("{} is not a model folder, but it contains a model as a single file", path.display())]
    #[diagnostic(code(survey::lone_file), help("give the file: {}", file.display()))]
    LoneFile {
        /// The folder.
        path: PathBuf,
        /// The file in it.
        file: PathBuf,
    },
    /// A file cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
}
