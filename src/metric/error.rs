//! What can be wrong with an evaluation.

use std::path::PathBuf;

use miette::Diagnostic;

use super::{METRICS, Need};
use crate::base::Interrupted;
use crate::data::DataError;
use crate::model::ModelError;
use crate::model::clip::TokenizerError;
use crate::sample::SampleError;

/// An evaluation that cannot be as asked.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum MetricError {
    /// No metric has this name.
    #[error("no metric is called `{name}`")]
    #[diagnostic(code(metric::unknown), help("there are {}", names()))]
    Unknown {
        /// The name as written.
        name: String,
    },
    /// A metric lacks something that the stage did not give.
    #[error("{metric} needs {}", need.in_words())]
    #[diagnostic(code(metric::needs), help("give it to the stage, or leave the metric out"))]
    Needs {
        /// The metric.
        metric: &'static str,
        /// What it needs.
        need: Need,
    },
    /// A model's name that cannot be the name of a folder.
    #[error("a model is called `{name}`, which cannot name a folder")]
    #[diagnostic(code(metric::name), help("use letters, digits, `-`, `_` and `.`"))]
    Name {
        /// The name.
        name: String,
    },
    /// The model that others are compared with is not among them, or there is none at all.
    #[error("`{name}` is to be the teacher, but is not among the models")]
    #[diagnostic(code(metric::no_teacher))]
    NoTeacher {
        /// The name.
        name: String,
    },
    /// A prompt that attribute accuracy can say nothing about.
    #[error("the prompt `{prompt}` names none of the attributes {attributes}")]
    #[diagnostic(code(metric::no_attribute), help("add the words that it uses to the lists of `attributes`"))]
    NoAttribute {
        /// The prompt.
        prompt: String,
        /// The lists' names.
        attributes: String,
    },
    /// A metric came out as NaN or infinity.
    #[error("{metric} of `{model}` is {found} for value {index}")]
    #[diagnostic(
        code(metric::not_finite),
        help("the model's weights are likely broken; `laptop-diff inspect` looks")
    )]
    NotFinite {
        /// The metric.
        metric: &'static str,
        /// The model.
        model: String,
        /// The value.
        found: f64,
        /// Which value, from 0.
        index: usize,
    },
    /// What is needed to measure is not there on this system.
    #[error("{metric} cannot be measured here: {reason}")]
    #[diagnostic(code(metric::unavailable), help("leave the metric out on this machine"))]
    Unavailable {
        /// The metric.
        metric: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(metric::file))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Asked to stop; the pictures that are done lie in the checkpoint folder.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A picture or a file of points.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Data(Box<DataError>),
    /// A model could not be loaded.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// A prompt could not be encoded for the scorer.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The schedule or the sampler.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sample(#[from] SampleError),
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(metric::tensor))]
    Tensor(#[from] candle_core::Error),
}

impl From<DataError> for MetricError {
    fn from(error: DataError) -> Self {
        // Boxed, because it is several times the size of the other variants.
        Self::Data(Box::new(error))
    }
}

impl Need {
    fn in_words(self) -> &'static str {
        match self {
            Self::Pictures => "pictures: a model directory with an autoencoder",
            Self::Scorer => "a scorer: a CLIP model directory",
            Self::Points => "held-out points: a calibration artefact",
            Self::Attributes => "attributes: named lists of words",
        }
    }
}

fn names() -> String {
    METRICS.iter().map(|metric| metric.name()).collect::<Vec<_>>().join(", ")
}
