//! How good a model is: quality, fidelity, size and speed.
//!
//! A metric gives one value per prompt, per point or per repetition; [`Evaluation`] turns them into a value with an
//! interval and a percentage of the teacher's. A new metric is a file in `metrics/` and a row in [`METRICS`].

mod bootstrap;
mod definition;
mod error;
mod evaluation;
mod features;
mod floor;
mod found;
mod frechet;
mod gallery;
mod gate;
mod gate_grammar;
mod inputs;
mod judging;
mod kinds;
mod metrics;
mod networks;
mod outside;
mod paired;
mod part;
mod record;
mod run;
mod scoring;
mod summary;
mod tensors;
mod values;

pub use bootstrap::{Interval, bootstrap};
pub use definition::{Method, Metric};
pub use error::MetricError;
pub use evaluation::{Candidate, Evaluation, Judge, Reference, names_a_folder, too_few};
pub use features::{picture_features, text_features};
pub use frechet::frechet;
pub use gallery::{Gallery, picture_path};
pub use gate::{Gate, Verdict};
pub use gate_grammar::GateError;
pub use inputs::{FeatureInputs, NetworkInputs, SetInputs, Texts, clip_scores, cosines};
pub use kinds::{Better, Need, OfSet, Prominence, Statistic};
pub use metrics::{METRICS, cmmd, find};
pub use outside::{Outside, ScoresByModel, read_scores};
pub use part::{Fill, Keep, Part};
pub use record::{
    Baseline, Estimate, Measurement, Metrics, ModelMetrics, ModelValues, Paired, PromptsRecord, SELECTED,
    TIMINGS_FILE, Values,
};
pub use run::Outcome;
