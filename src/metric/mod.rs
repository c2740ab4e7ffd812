//! How good a model is: quality, fidelity, size and speed.
//!
//! A metric gives one value per prompt, per point or per repetition; [`Evaluation`] turns them into a value with an
//! interval and a percentage of the teacher's. A new metric is a file in `metrics/` and a row in [`METRICS`].

mod bootstrap;
mod clip_scorer;
mod definition;
mod error;
mod evaluation;
mod gallery;
mod inputs;
mod kinds;
mod measurer;
mod metrics;
mod record;
mod run;
mod summary;

pub use bootstrap::{Interval, bootstrap};
pub use clip_scorer::ClipScorer;
pub use definition::Metric;
pub use error::MetricError;
pub use evaluation::{Candidate, Evaluation, names_a_folder};
pub use gallery::{Gallery, picture_path};
pub use inputs::{EvaluationInputs, LoadedModel, Texts};
pub use kinds::{Better, Need, Prominence, Statistic};
pub use metrics::{METRICS, find};
pub use record::{Baseline, Measurement, Metrics, ModelMetrics, ModelValues, SELECTED, TIMINGS_FILE, Values};
pub use run::{Fill, Keep, Outcome};
