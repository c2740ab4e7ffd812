//! Running an evaluation: the teacher first, then the other models, one at a time in memory.
//!
//! The results of one model are an intermediate artefact of their own, which can be kept: a hundred evaluations of
//! students share one teacher. Values that differ from run to run are measured anew each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::MetricError;
use super::evaluation::Evaluation;
use super::measurer::{Measured, Measurer};
use super::record::{self, METRICS_FILE, Metrics, ModelMetrics, ModelValues, VALUES_FILE, Values};
use super::{gallery, summary};
use crate::base::{Interrupt, Progress};

/// The results of an evaluation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The metrics that are the same in every run.
    pub metrics: Metrics,
    /// The metrics that are not: time and memory.
    pub timings: Metrics,
    /// Every single value of `metrics`.
    pub values: Values,
}

/// Writes the results of one model. Given the folder to fill, and a checkpoint folder that survives a crash.
pub type Fill<'a> = dyn Fn(&Path, &Path) -> Result<(), MetricError> + 'a;

/// Returns the folder with the results of the model of this index, which it lets `Fill` write if they do not exist yet.
pub type Keep<'a, E> = dyn Fn(usize, &Fill<'_>) -> Result<PathBuf, E> + 'a;

impl Evaluation<'_> {
    /// Measures all models. Their pictures go to `images/<model>/000.png`, `001.png`, ... in `output`.
    pub fn run<E: From<MetricError>>(
        &self,
        output: &Path,
        keep: &Keep<'_, E>,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Outcome, E> {
        self.check()?;
        let teacher = self.teacher_index()?;
        let measurer = Measurer::new(self, teacher, progress, interrupt);
        progress.length(self.pictures(), "pictures");
        let mut values = vec![Measured::default(); self.models.len()];
        let order = [teacher].into_iter().chain((0..self.models.len()).filter(|&index| index != teacher));
        for (done, index) in order.enumerate() {
            let model = OfModel { progress, before: (done * self.prompts.len()) as u64 };
            let part =
                keep(index, &|folder, checkpoint| measurer.measure_into(index, folder, checkpoint, &model))?;
            model.position(self.prompts.len() as u64);
            if self.vae.is_some() {
                let images = output.join("images").join(self.models[index].name);
                gallery::link(&part.join("images"), &images)?;
            }
            values[index] = Measurer::values(&part)?;
            values[index].extend(measurer.unreproducible(index)?);
        }
        Ok(self.outcome(&values, teacher))
    }

    fn outcome(&self, all: &[Measured], teacher: usize) -> Outcome {
        let mut outcome = Outcome {
            metrics: Metrics::new(self.teacher, self.prompts.len()),
            timings: Metrics::new(self.teacher, self.prompts.len()),
            values: Values::new(self.prompts),
        };
        for (index, model) in self.models.iter().enumerate() {
            let mut single = BTreeMap::new();
            let (mut reproducible, mut timings) = (BTreeMap::new(), BTreeMap::new());
            let mut unavailable = (BTreeMap::new(), BTreeMap::new());
            for metric in self.metrics {
                let unavailable = if metric.reproducible() { &mut unavailable.0 } else { &mut unavailable.1 };
                let Some(own) = all[index].values.get(metric.name()) else {
                    let reason = all[index].unavailable.get(metric.name()).cloned();
                    unavailable.insert(metric.name().to_owned(), reason.unwrap_or_default());
                    continue;
                };
                let of = all[teacher].values.get(metric.name()).filter(|_| index != teacher);
                let of = of.map(Vec::as_slice);
                let measurement = summary::summarise(*metric, own, of, self.random);
                if metric.reproducible() {
                    single.insert(metric.name().to_owned(), own.clone());
                    reproducible.insert(metric.name().to_owned(), measurement);
                } else {
                    timings.insert(metric.name().to_owned(), measurement);
                }
            }
            let model =
                |metrics, unavailable| ModelMetrics { model: model.name.to_owned(), metrics, unavailable };
            outcome
                .values
                .models
                .push(ModelValues { model: self.models[index].name.to_owned(), values: single });
            outcome.metrics.models.push(model(reproducible, unavailable.0));
            outcome.timings.models.push(model(timings, unavailable.1));
        }
        outcome
    }
}

/// The progress of one model as part of the whole.
struct OfModel<'a> {
    progress: &'a dyn Progress,
    /// Pictures of the models before it.
    before: u64,
}

impl Progress for OfModel<'_> {
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

impl Outcome {
    /// Writes `metrics.json`, `.timings.json` and `values.json`.
    pub fn write(&self, folder: &Path) -> Result<(), MetricError> {
        record::write(&folder.join(METRICS_FILE), &self.metrics)?;
        self.timings.write_timings(folder)?;
        record::write(&folder.join(VALUES_FILE), &self.values)
    }
}
