//! What an evaluation has measured so far, and who is told and asked while it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::kinds::OfSet;
use crate::base::{Interrupt, Progress};

/// Values by metric.
pub(super) type ByMetric = BTreeMap<&'static str, Vec<f64>>;

/// What was measured.
pub(super) struct Found {
    /// Of each model, in the order of the pipeline.
    pub(super) models: Vec<ByMetric>,
    /// Metrics of sets of pictures, of each model.
    pub(super) sets: Vec<BTreeMap<&'static str, OfSet>>,
    /// Why the others could not be measured here, of each model.
    pub(super) unavailable: Vec<BTreeMap<&'static str, String>>,
    /// What pictures get that have nothing to do with their prompts.
    pub(super) floors: Floors,
}

/// The folders of what was drawn.
pub(super) struct Drawn {
    /// Of each model, one for each seed.
    pub(super) galleries: Vec<Vec<PathBuf>>,
    /// Pictures of noise, where a metric has a floor.
    pub(super) noise: Option<PathBuf>,
}

/// Values of pictures that have nothing to do with their prompts.
#[derive(Default)]
pub(super) struct Floors {
    /// Of the teacher's pictures with shuffled captions.
    pub(super) shuffled: ByMetric,
    /// Of pictures of noise.
    pub(super) noise: ByMetric,
}

/// Who is told and asked while it runs.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    pub(super) progress: &'a dyn Progress,
    pub(super) interrupt: &'a Interrupt,
}

/// The progress of one part among those of its kind.
pub(super) struct OfPart<'a> {
    pub(super) progress: &'a dyn Progress,
    /// Pictures of the parts before it.
    pub(super) before: u64,
}

impl Found {
    pub(super) fn new(models: usize) -> Self {
        Self {
            models: vec![BTreeMap::new(); models],
            sets: vec![BTreeMap::new(); models],
            unavailable: vec![BTreeMap::new(); models],
            floors: Floors::default(),
        }
    }
}

impl Progress for OfPart<'_> {
    fn length(&self, _total: u64, _unit: &'static str) {}

    fn position(&self, done: u64) {
        self.progress.position(self.before + done);
    }

    fn resumed(&self, done: u64) {
        self.progress.resumed(self.before + done);
    }

    fn dropped(&self, file: &str, reason: &str) {
        self.progress.dropped(file, reason);
    }

    fn note(&self, text: &str) {
        self.progress.note(text);
    }
}
