//! Where models sit their exam, one at a time in memory. What all of them share is read when the first one sits: where
//! every model's part is kept from before and nothing is timed, that is never.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor, safetensors};

use super::exam::predict;
use super::{Evaluation, Exam, Gallery, Judge, Metric, MetricError, Need, Subject, gallery};
use crate::base::Interrupt;
use crate::model::unet::UNet;
use crate::sample::Generator;

/// In the folder of a model's part: its values by metric, f64, bit by bit as they were measured.
const VALUES: &str = "values.safetensors";

pub(super) struct Room<'a> {
    evaluation: &'a Evaluation<'a>,
    teacher: usize,
    exam: OnceCell<Exam<'a>>,
    /// The model in memory.
    seated: RefCell<Option<(usize, UNet)>>,
}

impl<'a> Room<'a> {
    pub(super) fn new(evaluation: &'a Evaluation<'a>, teacher: usize) -> Self {
        Self { evaluation, teacher, exam: OnceCell::new(), seated: RefCell::default() }
    }

    /// Fills the folder of one model's part: its pictures and its values. `drawn` is told how many pictures there are.
    pub(super) fn examine(
        &self,
        index: usize,
        folder: &Path,
        checkpoint: &Path,
        interrupt: &Interrupt,
        drawn: &mut dyn FnMut(usize),
    ) -> Result<(), MetricError> {
        let exam = self.exam()?;
        self.with(index, |unet| {
            let subject = self.sit(exam, unet, checkpoint, interrupt, drawn)?;
            let mut values = HashMap::new();
            for metric in self.evaluation.metrics.iter().filter(|metric| metric.reproducible()) {
                interrupt.check()?;
                let measured = self.measure(*metric, index, &subject)?;
                values.insert(metric.name(), Tensor::new(measured, &Device::Cpu)?);
            }
            self.publish(checkpoint, folder)?;
            Ok(safetensors::save(&values, folder.join(VALUES))?)
        })
    }

    /// What [`Room::examine`] left in a folder.
    pub(super) fn values(folder: &Path) -> Result<BTreeMap<String, Vec<f64>>, MetricError> {
        let values = safetensors::load(folder.join(VALUES), &Device::Cpu)?;
        values.into_iter().map(|(metric, values)| Ok((metric, values.to_vec1()?))).collect()
    }

    /// The values that differ from run to run, so that no part keeps them.
    pub(super) fn passing(&self, index: usize) -> Result<BTreeMap<String, Vec<f64>>, MetricError> {
        let mut values = BTreeMap::new();
        for metric in self.evaluation.metrics.iter().filter(|metric| !metric.reproducible()) {
            self.exam()?;
            let measured =
                self.with(index, |unet| self.measure(*metric, index, &Subject { unet, features: None }))?;
            values.insert(metric.name().to_owned(), measured);
        }
        Ok(values)
    }

    fn measure(
        &self,
        metric: &'static dyn Metric,
        index: usize,
        subject: &Subject<'_>,
    ) -> Result<Vec<f64>, MetricError> {
        let measured = metric.measure(self.exam()?, subject)?;
        match measured.iter().position(|value| !value.is_finite()) {
            None => Ok(measured),
            Some(at) => {
                let (model, found) = (self.evaluation.models[index].name.to_owned(), measured[at]);
                Err(MetricError::NotFinite { metric: metric.name(), model, found, index: at })
            }
        }
    }

    /// Does something with a model, which takes the place of the one that was in memory.
    fn with<T>(
        &self,
        index: usize,
        act: impl FnOnce(&UNet) -> Result<T, MetricError>,
    ) -> Result<T, MetricError> {
        let mut seated = self.seated.borrow_mut();
        let unet = match seated.take() {
            Some((other, unet)) if other == index => unet,
            other => {
                drop(other);
                (self.evaluation.models[index].load)()?
            }
        };
        act(&seated.insert((index, unet)).1)
    }

    fn exam(&self) -> Result<&Exam<'a>, MetricError> {
        if let Some(exam) = self.exam.get() {
            return Ok(exam);
        }
        let evaluation = self.evaluation;
        let captions = if evaluation.captions.is_empty() { evaluation.prompts } else { evaluation.captions };
        let device = evaluation.conditioning.encoder_hidden_states.device();
        let judge = match evaluation.scorer.filter(|_| evaluation.needs(Need::Scorer)) {
            Some(scorer) => Some(Judge::new(scorer, evaluation.prompts, captions, device)?),
            None => None,
        };
        let points = match evaluation.points.filter(|_| evaluation.needs(Need::Points)) {
            Some(points) => {
                let predict = |unet: &UNet| Ok(predict(unet, points, evaluation.batch)?);
                Some((points, self.with(self.teacher, predict)?))
            }
            None => None,
        };
        Ok(self.exam.get_or_init(|| Exam {
            prompts: evaluation.prompts,
            conditioning: evaluation.conditioning,
            latent: evaluation.latent,
            judge,
            captions,
            attributes: evaluation.attributes,
            points,
            batch: evaluation.batch,
        }))
    }

    /// Draws a model's pictures and shows them to the judge.
    fn sit<'u>(
        &self,
        exam: &Exam<'_>,
        unet: &'u UNet,
        checkpoint: &Path,
        interrupt: &Interrupt,
        drawn: &mut dyn FnMut(usize),
    ) -> Result<Subject<'u>, MetricError> {
        let evaluation = self.evaluation;
        let Some(vae) = evaluation.vae else { return Ok(Subject { unet, features: None }) };
        let gallery = Gallery {
            vae,
            conditioning: evaluation.conditioning,
            unconditional: evaluation.unconditional,
            latent: exam.latent,
            batch: evaluation.batch,
            random: evaluation.random,
        };
        let generator = Generator {
            unet,
            schedule: evaluation.schedule,
            sampler: evaluation.sampler,
            steps: evaluation.steps,
            guidance_scale: evaluation.guidance_scale,
        };
        let pictures = gallery.draw(&generator, &checkpoint.join("images"), interrupt, drawn)?;
        let features = exam.judge.as_ref().map(|judge| judge.look(&pictures)).transpose()?;
        Ok(Subject { unet, features })
    }

    fn publish(&self, checkpoint: &Path, folder: &Path) -> Result<(), MetricError> {
        match self.evaluation.vae {
            Some(_) => gallery::link(&checkpoint.join("images"), &folder.join("images")),
            None => Ok(()),
        }
    }
}
