//! An evaluation: several models, the teacher first, one at a time in memory, all measured alike.
//!
//! What is found out about one model is a part of its own, so that it can be kept: the teacher is the same in a hundred
//! evaluations of its students. What differs from run to run is measured beside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::room::Room;
use super::{
    Measurement, Metric, MetricError, Metrics, ModelMetrics, ModelValues, Need, Values, bootstrap, gallery,
    record,
};
use crate::backend::Random;
use crate::base::{Interrupt, Progress};
use crate::data::Calibration;
use crate::model::network::Conditioning;
use crate::model::unet::UNet;
use crate::model::vae::AutoencoderKl;
use crate::model::{ModelError, Scorer};
use crate::sample::{NoiseSchedule, Sampler};

/// A model to be measured.
pub struct Candidate<'a> {
    /// Its name in the pipeline; pictures lie in a folder of this name.
    pub name: &'a str,
    /// Loads its U-Net. One model at a time is in memory.
    pub load: &'a dyn Fn() -> Result<UNet, ModelError>,
}

/// Everything an evaluation is made of.
pub struct Evaluation<'a> {
    /// The models, in the order of the pipeline.
    pub models: &'a [Candidate<'a>],
    /// The name of the one the others are compared with.
    pub teacher: &'a str,
    /// What is measured.
    pub metrics: &'a [&'static dyn Metric],
    /// What the models were trained with.
    pub schedule: &'a NoiseSchedule,
    /// How pictures are drawn.
    pub sampler: &'a dyn Sampler,
    /// Evaluations of the U-Net per picture.
    pub steps: usize,
    /// How far beyond the unconditional prediction.
    pub guidance_scale: f64,
    /// Channels, height and width of the latents.
    pub latent: [usize; 3],
    /// Draws the pictures; without it there are none.
    pub vae: Option<&'a AutoencoderKl>,
    /// Compares pictures with texts.
    pub scorer: Option<&'a Scorer>,
    /// What is drawn.
    pub prompts: &'a [String],
    /// The prompts, encoded.
    pub conditioning: &'a Conditioning,
    /// As many times no text.
    pub unconditional: Option<&'a Conditioning>,
    /// What a picture might show, for `attribute-accuracy`.
    pub captions: &'a [String],
    /// Lists of words by the name of the attribute.
    pub attributes: &'a BTreeMap<String, Vec<String>>,
    /// Held-out points.
    pub points: Option<&'a Calibration>,
    /// Samples that go through a U-Net together.
    pub batch: usize,
    /// Streams of the pictures' noise, and `bootstrap`.
    pub random: &'a Random,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What is the same in every run.
    pub metrics: Metrics,
    /// What is not: time and memory.
    pub timings: Metrics,
    /// Every single value of `metrics`.
    pub values: Values,
}

/// Fills the folder of a model's part, given that and a folder for what should outlive a crash.
pub type Fill<'a> = dyn Fn(&Path, &Path) -> Result<(), MetricError> + 'a;

/// Gives the folder of the part of the model with this index, after it was filled, now or before.
pub type Keep<'a, E> = dyn Fn(usize, &Fill<'_>) -> Result<PathBuf, E> + 'a;

impl Evaluation<'_> {
    /// Measures all models. Their pictures go to `images/<model>/000.png` and on in `output`.
    pub fn run<E: From<MetricError>>(
        &self,
        output: &Path,
        keep: &Keep<'_, E>,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Outcome, E> {
        self.check()?;
        let teacher = self.teacher_index()?;
        let room = Room::new(self, teacher);
        progress.length((self.models.len() * self.prompts.len()) as u64, "pictures");
        let mut values = vec![BTreeMap::new(); self.models.len()];
        let order = [teacher].into_iter().chain((0..self.models.len()).filter(|&index| index != teacher));
        for (done, index) in order.enumerate() {
            let position = |count: usize| progress.position((done * self.prompts.len() + count) as u64);
            let part = keep(index, &|folder, checkpoint| {
                room.examine(index, folder, checkpoint, interrupt, &mut |count| position(count))
            })?;
            position(self.prompts.len());
            if self.vae.is_some() {
                let images = output.join("images").join(self.models[index].name);
                gallery::link(&part.join("images"), &images)?;
            }
            values[index] = Room::values(&part)?;
            values[index].extend(room.passing(index)?);
        }
        Ok(self.outcome(&values, teacher))
    }

    /// What the metrics lack, and names that cannot be.
    pub fn check(&self) -> Result<(), MetricError> {
        for metric in self.metrics {
            for &need in metric.needs() {
                let there = match need {
                    Need::Pictures => self.vae.is_some() && !self.prompts.is_empty(),
                    Need::Scorer => self.scorer.is_some(),
                    Need::Points => self.points.is_some(),
                    Need::Attributes => !self.attributes.is_empty(),
                };
                if !there {
                    return Err(MetricError::Needs { metric: metric.name(), need });
                }
            }
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let bad = |name: &str| name.is_empty() || name.starts_with('.') || !name.chars().all(fits);
        match self.models.iter().find(|model| bad(model.name)) {
            Some(model) => Err(MetricError::Name { name: model.name.to_owned() }),
            None => Ok(()),
        }
    }

    pub(super) fn needs(&self, need: Need) -> bool {
        self.metrics.iter().any(|metric| metric.needs().contains(&need))
    }

    fn teacher_index(&self) -> Result<usize, MetricError> {
        let found = self.models.iter().position(|model| model.name == self.teacher);
        found.ok_or_else(|| MetricError::NoTeacher { name: self.teacher.to_owned() })
    }

    fn outcome(&self, values: &[BTreeMap<String, Vec<f64>>], teacher: usize) -> Outcome {
        let mut outcome = Outcome {
            metrics: Metrics::new(self.teacher, self.prompts.len()),
            timings: Metrics::new(self.teacher, self.prompts.len()),
            values: Values::new(self.prompts),
        };
        for (index, model) in self.models.iter().enumerate() {
            let mut single = BTreeMap::new();
            let (mut lasting, mut passing) = (BTreeMap::new(), BTreeMap::new());
            for metric in self.metrics {
                let own = &values[index][metric.name()];
                let of = (index != teacher).then(|| values[teacher][metric.name()].as_slice());
                let measurement = summarise(*metric, own, of, self.random);
                if metric.reproducible() {
                    single.insert(metric.name().to_owned(), own.clone());
                    lasting.insert(metric.name().to_owned(), measurement);
                } else {
                    passing.insert(metric.name().to_owned(), measurement);
                }
            }
            let name = || model.name.to_owned();
            outcome.metrics.models.push(ModelMetrics { model: name(), metrics: lasting });
            outcome.timings.models.push(ModelMetrics { model: name(), metrics: passing });
            outcome.values.models.push(ModelValues { model: name(), values: single });
        }
        outcome
    }
}

impl Outcome {
    /// Writes `metrics.json`, `timings.json` and `values.json`.
    pub fn write(&self, folder: &Path) -> Result<(), MetricError> {
        record::write(&folder.join("metrics.json"), &self.metrics)?;
        record::write(&folder.join(super::TIMINGS_FILE), &self.timings)?;
        record::write(&folder.join("values.json"), &self.values)
    }
}

/// One number with its interval, and as a percentage of the teacher's.
fn summarise(metric: &dyn Metric, own: &[f64], teacher: Option<&[f64]>, random: &Random) -> Measurement {
    let statistic = metric.statistic();
    let pick = |values: &[f64], indices: &[usize]| {
        let picked: Vec<f64> = indices.iter().map(|&index| values[index]).collect();
        statistic.of(&picked)
    };
    // The same resamples for every model and metric: equal values have equal intervals.
    let stream = || random.stream("bootstrap", 0);
    let interval = bootstrap(own.len(), stream(), |indices| pick(own, indices));
    let value = statistic.of(own);
    let teacher = teacher.filter(|values| statistic.of(values) != 0.0);
    // Prompt by prompt for quality; two models' timings have nothing to do with each other.
    let paired = teacher.filter(|values| metric.reproducible() && values.len() == own.len());
    let ratio = paired.and_then(|values| {
        bootstrap(own.len(), stream(), |indices| 100.0 * (pick(own, indices) / pick(values, indices)))
    });
    Measurement {
        value,
        statistic,
        count: own.len(),
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
        unit: metric.unit().to_owned(),
        better: metric.better(),
        of_teacher: teacher.map(|values| 100.0 * (value / statistic.of(values))),
        of_teacher_low: ratio.map(|interval| interval.low),
        of_teacher_high: ratio.map(|interval| interval.high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::find;

    #[test]
    fn a_model_at_ninety_percent_of_every_value_is_at_ninety() -> Result<(), MetricError> {
        let teacher: Vec<f64> = (1..50).map(|value| f64::from(value % 7 + 1)).collect();
        let own: Vec<f64> = teacher.iter().map(|value| 0.9 * value).collect();
        let summary = summarise(find("clip-score")?, &own, Some(&teacher), &Random::new(1, "result"));
        let near = |found: Option<f64>| found.is_some_and(|found| (found - 90.0).abs() < 1e-9);
        assert!(near(summary.of_teacher) && near(summary.of_teacher_low) && near(summary.of_teacher_high));
        assert!(summary.low < Some(summary.value) && Some(summary.value) < summary.high);
        Ok(())
    }

    #[test]
    fn nothing_is_a_percentage_of_zero() -> Result<(), MetricError> {
        let summary =
            summarise(find("output-loss")?, &[1.0, 2.0], Some(&[0.0, 0.0]), &Random::new(1, "result"));
        assert_eq!(summary.of_teacher, None);
        assert_eq!(summary.value, 1.5);
        Ok(())
    }
}
