//! Running an evaluation: the pictures and the networks first, the teacher before the other models, then one scorer after
//! the other. What is kept is a [`Part`]; values that differ from run to run are measured anew each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::definition::Method;
use super::error::MetricError;
use super::evaluation::Evaluation;
use super::found::{Drawn, Found, OfPart, Watch};
use super::gallery::{self, IMAGES};
use super::kinds::Need;
use super::networks::Networks;
use super::part::{Keep, Part};
use super::record::{
    self, METRICS_FILE, Measurement, Metrics, ModelMetrics, ModelValues, VALUES_FILE, Values,
};
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
        let mut found = Found::new(self.models.len());
        let drawn = self.networks(teacher, output, keep, watch, &mut found)?;
        for (place, judge) in self.judges.iter().enumerate() {
            self.judge((place, judge), (teacher, &drawn), keep, watch, &mut found)?;
        }
        Ok(self.outcome(&found, teacher))
    }

    /// Draws all pictures and measures the networks.
    fn networks<E: From<MetricError>>(
        &self,
        teacher: usize,
        output: &Path,
        keep: &Keep<'_, E>,
        Watch { progress, interrupt }: Watch<'_>,
        found: &mut Found,
    ) -> Result<Drawn, E> {
        let networks = Networks::new(self, teacher, interrupt);
        let noise = self.noise(&networks, keep, progress)?;
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
                if let Some(outside) = self.outside {
                    outside.link(&part, (self.models[model].name, seed), output)?;
                }
                galleries[model].push(part);
            }
            self.of_latents(model, (&galleries[model], &galleries[teacher]), found)?;
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
        Ok(Drawn { galleries, noise })
    }

    /// Compares the latents of a model's galleries with the teacher's: the mean over the seeds.
    fn of_latents(
        &self,
        model: usize,
        (own, teacher): (&[PathBuf], &[PathBuf]),
        found: &mut Found,
    ) -> Result<(), MetricError> {
        for metric in self.metrics {
            let Method::Latents(measure) = metric.method() else { continue };
            let mut means = vec![0.0; self.prompts.len()];
            for (own, teacher) in own.iter().zip(teacher) {
                let latents = |gallery: &Path| gallery::latents(gallery, self.prompts.len());
                let single = measure(&latents(own)?, &latents(teacher)?)?;
                means.iter_mut().zip(single).for_each(|(mean, value)| *mean += value / self.seeds as f64);
            }
            let means = values::finite(metric.name(), self.models[model].name, means)?;
            found.models[model].insert(metric.name(), means);
        }
        Ok(())
    }

    /// Pictures of noise, if a metric has a floor.
    fn noise<E: From<MetricError>>(
        &self,
        networks: &Networks<'_>,
        keep: &Keep<'_, E>,
        progress: &dyn Progress,
    ) -> Result<Option<PathBuf>, E> {
        if self.vae.is_none() || !self.metrics.iter().any(|metric| metric.method().has_floor()) {
            return Ok(None);
        }
        let draw = |folder: &Path, checkpoint: &Path| {
            progress.length(self.prompts.len() as u64, "pictures of noise");
            networks.draw_noise((folder, checkpoint), progress)
        };
        keep(Part::Noise, &draw).map(Some)
    }

    /// Adds the scores from outside of one model.
    fn add_outside(
        &self,
        model: usize,
        teacher: usize,
        single: &mut BTreeMap<String, Vec<f64>>,
        measured: &mut BTreeMap<String, Measurement>,
    ) {
        let scores = self.outside.map(|outside| &outside.scores);
        for (metric, by_model) in scores.into_iter().flatten() {
            let of = |model: usize| by_model.get(self.models[model].name).map(Vec::as_slice);
            let Some(own) = of(model) else { continue };
            let against = summary::Against {
                teacher: of(teacher).filter(|_| model != teacher),
                wanted: self.differences.get(metric).copied(),
                ..summary::Against::default()
            };
            single.insert(metric.clone(), own.to_vec());
            measured.insert(metric.clone(), summary::summarise(summary::OUTSIDE, own, &against, self.random));
        }
    }

    fn outcome(&self, found: &Found, teacher: usize) -> Outcome {
        let empty = || Metrics::new(self.teacher, self.prompts.len(), self.seeds);
        let mut outcome = Outcome { metrics: empty(), timings: empty(), values: Values::new(self.prompts) };
        for judge in self.judges {
            let asked = self.metrics.iter().filter(|metric| judge.metrics.contains(&metric.name()));
            let named = asked.map(|metric| (metric.name().to_owned(), judge.name.to_owned()));
            outcome.metrics.scorers.extend(named);
        }
        outcome.metrics.reference = self.reference_name();
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
                if let Some(set) = found.sets[index].get(name) {
                    let of_teacher = found.sets[teacher].get(name).filter(|_| index != teacher);
                    let pictures = self.prompts.len() * self.seeds;
                    single.insert(name.to_owned(), vec![set.value]);
                    let measurement = summary::of_set(*metric, set, of_teacher, pictures);
                    reproducible.insert(name.to_owned(), measurement);
                    continue;
                }
                let own = &found.models[index][name];
                let of_teacher = found.models[teacher].get(name).filter(|_| index != teacher);
                let against = summary::Against {
                    teacher: of_teacher.map(Vec::as_slice),
                    shuffled: found.floors.shuffled.get(name).map(Vec::as_slice),
                    noise: found.floors.noise.get(name).map(Vec::as_slice),
                    wanted: self.differences.get(name).copied(),
                };
                let measurement = summary::summarise((*metric).into(), own, &against, self.random);
                if metric.reproducible() {
                    single.insert(name.to_owned(), own.clone());
                    reproducible.insert(name.to_owned(), measurement);
                } else {
                    timings.insert(name.to_owned(), measurement);
                }
            }
            self.add_outside(index, teacher, &mut single, &mut reproducible);
            let name = || model.name.to_owned();
            let of = |metrics, unavailable| ModelMetrics { model: name(), metrics, unavailable };
            outcome.metrics.models.push(of(reproducible, missing.0));
            outcome.timings.models.push(of(timings, missing.1));
            outcome.values.models.push(ModelValues { model: name(), values: single });
        }
        outcome
    }
}

impl Outcome {
    /// Adds the models of another evaluation of the same prompts.
    pub fn extend(&mut self, other: Self) {
        self.metrics.models.extend(other.metrics.models);
        self.values.models.extend(other.values.models);
    }

    /// Writes `metrics.json`, `.timings.json` and `values.json`.
    pub fn write(&self, folder: &Path) -> Result<(), MetricError> {
        record::write(&folder.join(METRICS_FILE), &self.metrics)?;
        self.timings.write_timings(folder)?;
        record::write(&folder.join(VALUES_FILE), &self.values)
    }
}
