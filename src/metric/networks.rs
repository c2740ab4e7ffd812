//! What needs the U-Nets: drawing the pictures, and the metrics of the networks themselves. One model at a time is in
//! memory, and it is loaded when its first part is missing: never, if all parts were kept and nothing is timed.

use std::cell::{OnceCell, RefCell};
use std::path::Path;

use super::definition::{Method, Metric};
use super::error::MetricError;
use super::evaluation::Evaluation;
use super::gallery::{self, Gallery, IMAGES, LATENTS};
use super::inputs::{InMemory, NetworkInputs, predict};
use super::kinds::Need;
use super::values::{self, Measured};
use crate::base::{Interrupt, Progress};
use crate::sample::Generator;

pub(super) struct Networks<'a> {
    evaluation: &'a Evaluation<'a>,
    teacher: usize,
    inputs: OnceCell<NetworkInputs<'a>>,
    /// The model in memory.
    loaded: RefCell<Option<(usize, InMemory)>>,
    interrupt: &'a Interrupt,
}

impl<'a> Networks<'a> {
    pub(super) fn new(evaluation: &'a Evaluation<'a>, teacher: usize, interrupt: &'a Interrupt) -> Self {
        Self { evaluation, teacher, inputs: OnceCell::new(), loaded: RefCell::default(), interrupt }
    }

    /// Draws one picture of each prompt into `folder`. `progress` receives the number of pictures so far.
    pub(super) fn draw(
        &self,
        model: usize,
        seed: usize,
        (folder, checkpoint): (&Path, &Path),
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        let evaluation = self.evaluation;
        let Some(gallery) = self.gallery(seed) else { return Ok(()) };
        self.with(model, |InMemory { unet, .. }| {
            let generator = Generator {
                unet,
                schedule: evaluation.schedule,
                sampler: evaluation.sampler,
                steps: evaluation.steps,
                guidance_scale: evaluation.guidance_scale,
            };
            let drawn = gallery.draw(&generator, checkpoint, self.interrupt, progress);
            drawn.map_err(|error| error.of_model(evaluation.models[model].name))
        })?;
        gallery::link(&checkpoint.join(LATENTS), &folder.join(LATENTS))?;
        gallery::link(&checkpoint.join(IMAGES), &folder.join(IMAGES))
    }

    /// Draws a picture of noise for each prompt into `folder`.
    pub(super) fn draw_noise(
        &self,
        (folder, checkpoint): (&Path, &Path),
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        let Some(gallery) = self.gallery(0) else { return Ok(()) };
        gallery.draw_noise(checkpoint, self.interrupt, progress)?;
        gallery::link(&checkpoint.join(IMAGES), &folder.join(IMAGES))
    }

    fn gallery(&self, seed: usize) -> Option<Gallery<'a>> {
        let evaluation = self.evaluation;
        Some(Gallery {
            prompts: evaluation.prompts,
            vae: evaluation.vae?,
            conditioning: evaluation.conditioning,
            unconditional: evaluation.unconditional,
            latent: evaluation.latent,
            batch: evaluation.batch,
            random: evaluation.random,
            seed,
        })
    }

    /// Measures one metric of a U-Net.
    pub(super) fn measure(&self, model: usize, metric: &'static dyn Metric) -> Result<Measured, MetricError> {
        let Method::Network(measure) = metric.method() else { return Ok(Measured::Values(Vec::new())) };
        self.interrupt.check()?;
        let inputs = self.inputs()?;
        match self.with(model, |model| measure(inputs, model)) {
            Err(MetricError::Unavailable { reason, .. }) => Ok(Measured::Unavailable(reason.to_owned())),
            measured => {
                let name = self.evaluation.models[model].name;
                values::finite(metric.name(), name, measured?).map(Measured::Values)
            }
        }
    }

    /// Calls `act` with a model, after replacing the one in memory if it is another.
    fn with<T>(
        &self,
        index: usize,
        act: impl FnOnce(&InMemory) -> Result<T, MetricError>,
    ) -> Result<T, MetricError> {
        let mut loaded = self.loaded.borrow_mut();
        let model = match loaded.take() {
            Some((other, model)) if other == index => model,
            other => {
                drop(other);
                InMemory::new((self.evaluation.models[index].load)()?)
            }
        };
        act(&loaded.insert((index, model)).1)
    }

    fn inputs(&self) -> Result<&NetworkInputs<'a>, MetricError> {
        if let Some(inputs) = self.inputs.get() {
            return Ok(inputs);
        }
        let evaluation = self.evaluation;
        let points = match evaluation.points.filter(|_| evaluation.needs(Need::Points)) {
            Some(points) => {
                let predict = |teacher: &InMemory| Ok(predict(&teacher.unet, points, evaluation.batch)?);
                Some((points, self.with(self.teacher, predict)?))
            }
            None => None,
        };
        Ok(self.inputs.get_or_init(|| NetworkInputs {
            conditioning: evaluation.conditioning,
            latent: evaluation.latent,
            points,
            schedule: evaluation.schedule,
            batch: evaluation.batch,
        }))
    }
}
