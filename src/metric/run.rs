//! Running an evaluation: the pictures and the networks first, the teacher before the other models, then one scorer after
//! the other. What is kept is a [`Part`]; values that differ from run to run are measured anew each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::definition::{Method, Metric};
use super::error::MetricError;
use super::evaluation::{Evaluation, Judge};
use super::floor::derangement;
use super::gallery::{self, IMAGES};
use super::judging::{self, EncodedTexts, Judging};
use super::kinds::Need;
use super::networks::Networks;
use super::part::{Keep, Part};
use super::record::{self, METRICS_FILE, Metrics, ModelMetrics, ModelValues, VALUES_FILE, Values};
use super::summary;
use super::values::{self, Measured};
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

/// Values by metric.
type ByMetric = BTreeMap<&'static str, Vec<f64>>;

/// What was measured.
struct Found {
    /// Of each model, in the order of the pipeline.
    models: Vec<ByMetric>,
    /// Why the others could not be measured here, of each model.
    unavailable: Vec<BTreeMap<&'static str, String>>,
    /// Of the teacher's pictures with shuffled captions.
    floor: ByMetric,
}

/// Who is told and asked while it runs.
#[derive(Clone, Copy)]
struct Watch<'a> {
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
}

impl Evaluation<'_> {
    /// Measures all models. Their pictures go to `images/<model>/000.png`, `001.png`, ... in `output`, those of further
    /// seeds to `images/<model>/seed-1/000.png`, ....
    pub fn run<E: From<MetricError>>(
        &self,
        output: &Path,
        keep: &Keep<'_, E>,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Outcome, E> {
        self.check()?;
        let teacher = self.teacher_index()?;
        let watch = Watch { progress, interrupt };
        let count = self.models.len();
        let mut found = Found {
            models: vec![BTreeMap::new(); count],
            unavailable: vec![BTreeMap::new(); count],
            floor: BTreeMap::new(),
        };
        let galleries = self.networks(teacher, output, keep, watch, &mut found)?;
        for (place, judge) in self.judges.iter().enumerate() {
            self.judge(place, judge, &galleries, keep, watch, &mut found)?;
        }
        Ok(self.outcome(&found, teacher))
    }

    /// Draws all pictures and measures the networks. Returns the galleries of each model.
    fn networks<E: From<MetricError>>(
        &self,
        teacher: usize,
        output: &Path,
        keep: &Keep<'_, E>,
        Watch { progress, interrupt }: Watch<'_>,
        found: &mut Found,
    ) -> Result<Vec<Vec<PathBuf>>, E> {
        let networks = Networks::new(self, teacher, interrupt);
        progress.length(self.pictures(), "pictures");
        let mut before = 0;
        let mut galleries = vec![Vec::new(); self.models.len()];
        let order = [teacher].into_iter().chain((0..self.models.len()).filter(|&model| model != teacher));
        for model in order {
            for seed in (0..self.seeds).filter(|_| self.vae.is_some()) {
                let watch = OfPart { progress, before };
                let draw = |folder: &Path, checkpoint: &Path| {
                    networks.draw(model, seed, (folder, checkpoint), &watch)
                };
                let part = keep(Part::Gallery { model, seed }, &draw)?;
                before += self.prompts.len() as u64;
                progress.position(before);
                let images = output.join(IMAGES).join(self.models[model].name);
                let images = if seed == 0 { images } else { images.join(format!("seed-{seed}")) };
                gallery::link(&part.join(IMAGES), &images)?;
                galleries[model].push(part);
            }
            for metric in self.metrics.iter().filter(|metric| matches!(metric.method(), Method::Network(_))) {
                let measured = match metric.reproducible() {
                    false => networks.measure(model, *metric)?,
                    true => {
                        let reads_points = metric.needs().contains(&Need::Points);
                        let part = Part::Values { model, metric: metric.name(), reads_points };
                        let fill = |folder: &Path, _: &Path| {
                            values::write(folder, networks.measure(model, *metric)?)
                        };
                        values::read(&keep(part, &fill)?)?
                    }
                };
                match measured {
                    Measured::Values(values) => drop(found.models[model].insert(metric.name(), values)),
                    Measured::Unavailable(reason) => {
                        found.unavailable[model].insert(metric.name(), reason);
                    }
                }
            }
        }
        Ok(galleries)
    }

    /// Measures the metrics of one scorer.
    fn judge<E: From<MetricError>>(
        &self,
        scorer: usize,
        judge: &Judge<'_>,
        galleries: &[Vec<PathBuf>],
        keep: &Keep<'_, E>,
        Watch { progress, interrupt }: Watch<'_>,
        found: &mut Found,
    ) -> Result<(), E> {
        let asked = |metric: &&&'static dyn Metric| judge.metrics.contains(&metric.name());
        let metrics: Vec<_> = self.metrics.iter().filter(asked).collect();
        if metrics.is_empty() {
            return Ok(());
        }
        let judging = Judging::new(self, judge, interrupt);
        let encode = |folder: &Path, _: &Path| judging.encode_texts(folder, progress);
        let texts = EncodedTexts::read(&keep(Part::Texts { scorer }, &encode)?)?;
        progress.length(self.pictures(), "scored pictures");
        let own: Vec<u32> = (0..self.prompts.len() as u32).collect();
        let mut before = 0;
        for (model, galleries) in galleries.iter().enumerate() {
            let name = self.models[model].name;
            let mut features: Vec<Tensor> = Vec::new();
            for (seed, gallery) in galleries.iter().enumerate() {
                let watch = OfPart { progress, before };
                let fill = |folder: &Path, checkpoint: &Path| {
                    judging.encode_pictures(name, gallery, (folder, checkpoint), &watch)
                };
                features.push(judging::features(&keep(Part::Features { scorer, model, seed }, &fill)?)?);
                before += self.prompts.len() as u64;
                progress.position(before);
            }
            for metric in &metrics {
                let measured = judging.measure(**metric, name, &texts, &features, &own)?;
                found.models[model].insert(metric.name(), measured);
                if let Some(order) = derangement(own.len()).filter(|_| name == self.teacher) {
                    let shuffled = judging.measure(**metric, name, &texts, &features, &order)?;
                    found.floor.insert(metric.name(), shuffled);
                }
            }
        }
        Ok(())
    }

    fn outcome(&self, found: &Found, teacher: usize) -> Outcome {
        let empty = || Metrics::new(self.teacher, self.prompts.len(), self.seeds);
        let mut outcome = Outcome { metrics: empty(), timings: empty(), values: Values::new(self.prompts) };
        for judge in self.judges {
            let asked = self.metrics.iter().filter(|metric| judge.metrics.contains(&metric.name()));
            let named = asked.map(|metric| (metric.name().to_owned(), judge.name.to_owned()));
            outcome.metrics.scorers.extend(named);
        }
        for (index, model) in self.models.iter().enumerate() {
            let mut single = BTreeMap::new();
            let (mut reproducible, mut timings) = (BTreeMap::new(), BTreeMap::new());
            let mut missing = (BTreeMap::new(), BTreeMap::new());
            for metric in self.metrics {
                let name = metric.name();
                if let Some(reason) = found.unavailable[index].get(name) {
                    let missing = if metric.reproducible() { &mut missing.0 } else { &mut missing.1 };
                    missing.insert(name.to_owned(), reason.clone());
                    continue;
                }
                let own = &found.models[index][name];
                let of_teacher = found.models[teacher].get(name).filter(|_| index != teacher);
                let against = summary::Against {
                    teacher: of_teacher.map(Vec::as_slice),
                    floor: found.floor.get(name).map(Vec::as_slice),
                };
                let measurement = summary::summarise(*metric, own, &against, self.random);
                if metric.reproducible() {
                    single.insert(name.to_owned(), own.clone());
                    reproducible.insert(name.to_owned(), measurement);
                } else {
                    timings.insert(name.to_owned(), measurement);
                }
            }
            let name = || model.name.to_owned();
            let of = |metrics, unavailable| ModelMetrics { model: name(), metrics, unavailable };
            outcome.metrics.models.push(of(reproducible, missing.0));
            outcome.timings.models.push(of(timings, missing.1));
            outcome.values.models.push(ModelValues { model: name(), values: single });
        }
        outcome
    }
}

/// The progress of one part among those of its kind.
struct OfPart<'a> {
    progress: &'a dyn Progress,
    /// Pictures of the parts before it.
    before: u64,
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

impl Outcome {
    /// Writes `metrics.json`, `.timings.json` and `values.json`.
    pub fn write(&self, folder: &Path) -> Result<(), MetricError> {
        record::write(&folder.join(METRICS_FILE), &self.metrics)?;
        self.timings.write_timings(folder)?;
        record::write(&folder.join(VALUES_FILE), &self.values)
    }
}
