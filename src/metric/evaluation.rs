//! An evaluation: several models, the teacher first, one at a time in memory, all measured alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::exam::predict;
use super::{
    Exam, Gallery, Judge, Measurement, Metric, MetricError, Metrics, ModelMetrics, ModelValues, Need,
    Subject, Values, bootstrap, gallery, record,
};
use crate::backend::Random;
use crate::base::{Interrupt, Progress};
use crate::data::Calibration;
use crate::model::unet::{Conditioning, UNet};
use crate::model::vae::AutoencoderKl;
use crate::model::{ModelError, Scorer};
use crate::sample::{Generator, NoiseSchedule, Sampler};

/// A model to be measured.
pub struct Candidate<'a> {
    /// Its name in the pipeline; pictures lie in a folder of this name.
    pub name: &'a str,
    /// Loads its U-Net. Called once, so that one model at a time is in memory.
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

impl Evaluation<'_> {
    /// Measures all models. Pictures are kept in `checkpoint` as they are drawn, and copied to
    /// `images/<model>/000.png` and on in `output` at the end.
    pub fn run(
        &self,
        output: &Path,
        checkpoint: &Path,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Outcome, MetricError> {
        self.check()?;
        let teacher = self.teacher_index()?;
        let device = self.conditioning.encoder_hidden_states.device();
        let judge = match self.scorer.filter(|_| self.needed(Need::Scorer)) {
            Some(scorer) => {
                let captions = if self.captions.is_empty() { self.prompts } else { self.captions };
                Some(Judge::new(scorer, self.prompts, captions, device)?)
            }
            None => None,
        };
        let first = (self.models[teacher].load)()?;
        let (height, width) = first.config().sample_size;
        let points = self.points.filter(|_| self.needed(Need::Points));
        let mut exam = Exam {
            prompts: self.prompts,
            conditioning: self.conditioning,
            latent: [first.config().in_channels, height, width],
            judge,
            captions: if self.captions.is_empty() { self.prompts } else { self.captions },
            attributes: self.attributes,
            points: None,
            batch: self.batch,
        };
        if let Some(points) = points {
            exam.points = Some((points, predict(&first, points, self.batch)?));
        }

        progress.length((self.models.len() * self.prompts.len()) as u64, "pictures");
        let mut first = Some(first);
        let mut values: Vec<BTreeMap<&str, Vec<f64>>> = vec![BTreeMap::new(); self.models.len()];
        // The teacher is in memory already.
        let order = [teacher].into_iter().chain((0..self.models.len()).filter(|&index| index != teacher));
        for (done, index) in order.enumerate() {
            let model = &self.models[index];
            let unet = match first.take() {
                Some(unet) => unet,
                None => (model.load)()?,
            };
            let before = done * self.prompts.len();
            let folder = checkpoint.join("images").join(model.name);
            let drawn = &mut |count: usize| progress.position((before + count) as u64);
            let subject = self.sit(&exam, &unet, &folder, interrupt, drawn)?;
            for metric in self.metrics {
                interrupt.check()?;
                let measured = metric.measure(&exam, &subject)?;
                if let Some(index) = measured.iter().position(|value| !value.is_finite()) {
                    let (metric, found) = (metric.name(), measured[index]);
                    return Err(MetricError::NotFinite {
                        metric,
                        model: model.name.to_owned(),
                        found,
                        index,
                    });
                }
                values[index].insert(metric.name(), measured);
            }
        }
        if self.vae.is_some() {
            self.publish(output, checkpoint)?;
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

    fn needed(&self, need: Need) -> bool {
        self.metrics.iter().any(|metric| metric.needs().contains(&need))
    }

    fn teacher_index(&self) -> Result<usize, MetricError> {
        let found = self.models.iter().position(|model| model.name == self.teacher);
        found.ok_or_else(|| MetricError::NoTeacher { name: self.teacher.to_owned() })
    }

    /// Draws a model's pictures and shows them to the judge.
    fn sit<'u>(
        &self,
        exam: &Exam<'_>,
        unet: &'u UNet,
        folder: &Path,
        interrupt: &Interrupt,
        drawn: &mut dyn FnMut(usize),
    ) -> Result<Subject<'u>, MetricError> {
        let Some(vae) = self.vae else { return Ok(Subject { unet, features: None }) };
        let gallery = Gallery {
            vae,
            conditioning: self.conditioning,
            unconditional: self.unconditional,
            latent: exam.latent,
            batch: self.batch,
            random: self.random,
        };
        let generator = Generator {
            unet,
            schedule: self.schedule,
            sampler: self.sampler,
            steps: self.steps,
            guidance_scale: self.guidance_scale,
        };
        let pictures = gallery.draw(&generator, folder, interrupt, drawn)?;
        let features = exam.judge.as_ref().map(|judge| judge.look(&pictures)).transpose()?;
        Ok(Subject { unet, features })
    }

    /// Copies the pictures to where the artefact has them.
    fn publish(&self, output: &Path, checkpoint: &Path) -> Result<(), MetricError> {
        for model in self.models {
            let relative = Path::new("images").join(model.name);
            let (from, to) = (checkpoint.join(&relative), output.join(&relative));
            let failed = |source| MetricError::File { path: to.clone(), source };
            fs::create_dir_all(&to).map_err(failed)?;
            for index in 0..self.prompts.len() {
                let path = gallery::picture_path(&from, index);
                fs::copy(&path, gallery::picture_path(&to, index)).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn outcome(&self, values: &[BTreeMap<&str, Vec<f64>>], teacher: usize) -> Outcome {
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
