//! The parts of an evaluation that are kept, each of which depends on less than the whole: another metric or another
//! scorer draws no picture again, and a hundred evaluations of students share one teacher.

use std::path::{Path, PathBuf};

use super::error::MetricError;

/// A piece of work whose result is kept. Models and scorers are given by their places in the evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One picture of each prompt, drawn by a model. It depends on no metric and on no scorer.
    Gallery {
        /// The model.
        model: usize,
        /// Which of the pictures of each prompt, from 0.
        seed: usize,
    },
    /// Pictures of noise, one for each prompt. They depend on the autoencoder and on no U-Net.
    Noise,
    /// The values of a metric that reads the U-Net.
    Values {
        /// The model.
        model: usize,
        /// The metric.
        metric: &'static str,
        /// Whether the values depend on the held-out points.
        reads_points: bool,
    },
    /// A scorer's features of the prompts and captions.
    Texts {
        /// The scorer.
        scorer: usize,
    },
    /// A scorer's features of a gallery.
    Features {
        /// The scorer.
        scorer: usize,
        /// The model of the gallery.
        model: usize,
        /// The seed of the gallery.
        seed: usize,
    },
    /// A scorer's features of the pictures of noise.
    NoiseFeatures {
        /// The scorer.
        scorer: usize,
    },
    /// A scorer's features of the real pictures.
    Reference {
        /// The scorer.
        scorer: usize,
    },
}

/// Writes a part. Given the folder to fill, and a checkpoint folder that survives a crash.
pub type Fill<'a> = dyn Fn(&Path, &Path) -> Result<(), MetricError> + 'a;

/// Returns the folder of a part, which it lets `Fill` write if it does not exist yet.
pub type Keep<'a, E> = dyn Fn(Part, &Fill<'_>) -> Result<PathBuf, E> + 'a;
