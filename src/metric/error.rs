//! Why an evaluation fails.

use std::path::PathBuf;

use miette::Diagnostic;

use super::kinds::Need;
use crate::base::names::UnknownName;
use crate::base::{FileError, Interrupted};
use crate::data::DataError;
use crate::model::clip::TokenizerError;
use crate::model::{ModelError, ScorerKind};
use crate::sample::SampleError;

/// Why an evaluation fails.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum MetricError {
    /// No metric has this name.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Unknown(#[from] UnknownName),
    /// A metric requires an input that the stage did not give.
    #[error("{metric} needs {}", need.in_words())]
    #[diagnostic(code(metric::needs), help("give it to the stage, or leave the metric out"))]
    Needs {
        /// The metric.
        metric: &'static str,
        /// The missing input.
        need: Need,
    },
    /// A model's name that cannot name a folder.
    #[error("the model name `{name}` cannot name a folder")]
    #[diagnostic(
        code(metric::name),
        help("use letters, digits, `-`, `_` and `.`, and do not begin with `.`")
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The teacher is not among the models.
    #[error("the teacher `{name}` is not among the models")]
    #[diagnostic(code(metric::no_teacher), help("add it to the models, or name one of them as the teacher"))]
    NoTeacher {
        /// The name.
        name: String,
    },
    /// A prompt that attribute accuracy cannot judge.
    #[error("the prompt `{prompt}` names none of the attributes {attributes}")]
    #[diagnostic(
        code(metric::no_attribute),
        help("add the prompt's words to the lists under `attributes`, or remove the prompt")
    )]
    NoAttribute {
        /// The prompt.
        prompt: String,
        /// The lists' names.
        attributes: String,
    },
    /// A metric of sets of pictures with so few that its values mean nothing.
    #[error("{metric} needs {needed} pictures {of}, but there are {found}")]
    #[diagnostic(
        code(metric::too_few),
        help(
            "draw more with `pictures` or `seeds`, or leave the metric out; `small-sets: true` measures it all the same, \
             but its values depend on the number of pictures and cannot be compared with published ones"
        )
    )]
    TooFew {
        /// The metric.
        metric: &'static str,
        /// How many pictures there are.
        found: usize,
        /// Whose pictures.
        of: &'static str,
        /// How many it needs.
        needed: usize,
    },
    /// A scorer that a metric cannot use.
    #[error("{metric} needs {}, but `{parameter}` is {}", needed(wanted), found.in_words())]
    #[diagnostic(
        code(metric::scorer_kind),
        help("give the metric its own under `scorers`, as examples/evaluating.md says")
    )]
    ScorerKind {
        /// The metric.
        metric: &'static str,
        /// What it can use.
        wanted: &'static [ScorerKind],
        /// The parameter that names the scorer.
        parameter: String,
        /// What the scorer is.
        found: ScorerKind,
    },
    /// A file of scores from outside that cannot be used.
    #[error("{}: {reason}", path.display())]
    #[diagnostic(
        code(metric::outside),
        help("each line is an object such as {{\"model\": \"teacher\", \"prompt\": 0, \"score\": 0.5}}")
    )]
    Outside {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A value is NaN or infinite.
    #[error("{metric} of `{model}` is {found} for value {index}; it must be finite")]
    #[diagnostic(
        code(metric::not_finite),
        help("the model's weights are probably broken; check them with `laptop-diff inspect`")
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
    /// The pictures of a model hold a NaN or an infinity, or its part that makes them does.
    #[error("the pictures of `{model}` cannot be drawn: {cause}")]
    #[diagnostic(forward(cause))]
    Pictures {
        /// The model.
        model: String,
        /// The part, the prompt and the step.
        cause: Box<MetricError>,
    },
    /// The scorer gave a NaN or an infinity.
    #[error("the scorer gives {found} for {of}")]
    #[diagnostic(
        code(metric::scorer_not_finite),
        help("its weights are probably broken: copy the scorer's folder again")
    )]
    Scorer {
        /// The first such number.
        found: f32,
        /// The text, or the prompt of the picture.
        of: String,
    },
    /// This system or device cannot measure the metric. An evaluation goes on and says so.
    #[error("{metric} cannot be measured here: {reason}")]
    #[diagnostic(code(metric::unavailable), help("leave the metric out on this machine"))]
    Unavailable {
        /// The metric.
        metric: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// The run was interrupted; finished pictures are in the checkpoint folder.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A picture or calibration points could not be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Data(Box<DataError>),
    /// A model could not be loaded.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// The scorer's tokenizer rejected a prompt.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The noise schedule or the sampler failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sample(#[from] SampleError),
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(metric::tensor))]
    Tensor(#[from] candle_core::Error),
}

/// One of some scorers, in words.
fn needed(wanted: &[ScorerKind]) -> String {
    wanted.iter().map(|kind| kind.in_words()).collect::<Vec<_>>().join(" or ")
}

impl MetricError {
    /// Names the model, where the error is about its numbers.
    pub(super) fn of_model(self, model: &str) -> Self {
        let numbers = match &self {
            Self::Data(error) => matches!(**error, DataError::NotFinite { .. }),
            Self::Sample(error) => matches!(error, SampleError::NotFinite { .. }),
            _ => false,
        };
        match numbers {
            true => Self::Pictures { model: model.to_owned(), cause: Box::new(self) },
            false => self,
        }
    }
}

impl From<DataError> for MetricError {
    fn from(error: DataError) -> Self {
        // Boxed because it is several times the size of the other variants.
        Self::Data(Box::new(error))
    }
}
