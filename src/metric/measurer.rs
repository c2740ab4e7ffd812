//! Measures models, one at a time in memory. Shared inputs are loaded when the first model needs them: never, if all
//! results were kept from earlier runs and nothing is timed.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use candle_core::{Device, Tensor, safetensors};

use super::clip_scorer::ClipScorer;
use super::definition::Metric;
use super::error::MetricError;
use super::evaluation::Evaluation;
use super::gallery::{self, Gallery};
use super::inputs::{EvaluationInputs, LoadedModel, predict};
use super::kinds::Need;
use crate::base::{FileError, Interrupt, Progress, files};
use crate::model::files::weights;
use crate::model::unet::UNet;
use crate::sample::Generator;

/// The values of one model by metric, in f64 without loss.
const VALUES: &str = "values.safetensors";
/// Why metrics could not be measured; absent if all could.
const UNAVAILABLE: &str = "unavailable.json";

/// What was measured of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Measured {
    /// The values of each metric.
    pub(super) values: BTreeMap<String, Vec<f64>>,
    /// Why the other metrics have none.
    pub(super) unavailable: BTreeMap<String, String>,
}

impl Measured {
    fn add(&mut self, metric: &str, measured: Result<Vec<f64>, MetricError>) -> Result<(), MetricError> {
        match measured {
            Ok(values) => drop(self.values.insert(metric.to_owned(), values)),
            Err(MetricError::Unavailable { reason, .. }) => {
                self.unavailable.insert(metric.to_owned(), reason.to_owned());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.values.extend(other.values);
        self.unavailable.extend(other.unavailable);
    }
}

pub(super) struct Measurer<'a> {
    evaluation: &'a Evaluation<'a>,
    teacher: usize,
    inputs: OnceCell<EvaluationInputs<'a>>,
    /// The model in memory.
    loaded: RefCell<Option<(usize, UNet)>>,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
}

impl<'a> Measurer<'a> {
    pub(super) fn new(
        evaluation: &'a Evaluation<'a>,
        teacher: usize,
        progress: &'a dyn Progress,
        interrupt: &'a Interrupt,
    ) -> Self {
        let (inputs, loaded) = (OnceCell::new(), RefCell::default());
        Self { evaluation, teacher, inputs, loaded, progress, interrupt }
    }

    /// Writes the pictures and the values of one model into `folder`. `progress` receives the number of pictures so far.
    pub(super) fn measure_into(
        &self,
        index: usize,
        folder: &Path,
        checkpoint: &Path,
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        let (inputs, interrupt) = (self.inputs()?, self.interrupt);
        let name = self.evaluation.models[index].name;
        self.with(index, |unet| {
            let model = self.draw(inputs, unet, checkpoint, interrupt, progress);
            let model = model.map_err(|error| error.of_model(name))?;
            let mut all = Measured::default();
            for metric in self.evaluation.metrics.iter().filter(|metric| metric.reproducible()) {
                interrupt.check()?;
                all.add(metric.name(), self.measure(*metric, index, &model))?;
            }
            self.publish(checkpoint, folder)?;
            let tensor = |(name, values)| Ok((name, Tensor::new::<Vec<f64>>(values, &Device::Cpu)?));
            let values: HashMap<String, Tensor> =
                all.values.into_iter().map(tensor).collect::<Result<_, MetricError>>()?;
            let path = folder.join(VALUES);
            weights::write_with(&path, values, None).map_err(FileError::at(&path))?;
            if all.unavailable.is_empty() {
                return Ok(());
            }
            let path = folder.join(UNAVAILABLE);
            Ok(files::write_json(&path, &all.unavailable).map_err(FileError::at(&path))?)
        })
    }

    /// Reads the values that [`Measurer::measure_into`] wrote.
    pub(super) fn values(folder: &Path) -> Result<Measured, MetricError> {
        let values = safetensors::load(folder.join(VALUES), &Device::Cpu)?;
        let values = values.into_iter().map(|(metric, values)| Ok((metric, values.to_vec1()?)));
        let path = folder.join(UNAVAILABLE);
        let unavailable = match files::read_json(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            read => read.map_err(FileError::at(&path))?,
        };
        Ok(Measured { values: values.collect::<Result<_, MetricError>>()?, unavailable })
    }

    /// Measures the metrics that differ from run to run, which are not kept.
    pub(super) fn unreproducible(&self, index: usize) -> Result<Measured, MetricError> {
        let mut all = Measured::default();
        for metric in self.evaluation.metrics.iter().filter(|metric| !metric.reproducible()) {
            self.inputs()?;
            let measured =
                self.with(index, |unet| self.measure(*metric, index, &LoadedModel { unet, features: None }));
            all.add(metric.name(), measured)?;
        }
        Ok(all)
    }

    fn measure(
        &self,
        metric: &'static dyn Metric,
        index: usize,
        model: &LoadedModel<'_>,
    ) -> Result<Vec<f64>, MetricError> {
        let measured = metric.measure(self.inputs()?, model)?;
        match measured.iter().position(|value| !value.is_finite()) {
            None => Ok(measured),
            Some(at) => {
                let (model, found) = (self.evaluation.models[index].name.to_owned(), measured[at]);
                Err(MetricError::NotFinite { metric: metric.name(), model, found, index: at })
            }
        }
    }

    /// Calls `act` with a model, after replacing the one in memory if it is another.
    fn with<T>(
        &self,
        index: usize,
        act: impl FnOnce(&UNet) -> Result<T, MetricError>,
    ) -> Result<T, MetricError> {
        let mut loaded = self.loaded.borrow_mut();
        let unet = match loaded.take() {
            Some((other, unet)) if other == index => unet,
            other => {
                drop(other);
                (self.evaluation.models[index].load)()?
            }
        };
        act(&loaded.insert((index, unet)).1)
    }

    fn inputs(&self) -> Result<&EvaluationInputs<'a>, MetricError> {
        if let Some(inputs) = self.inputs.get() {
            return Ok(inputs);
        }
        let evaluation = self.evaluation;
        let captions = if evaluation.captions.is_empty() { evaluation.prompts } else { evaluation.captions };
        let device = evaluation.conditioning.encoder_hidden_states.device();
        let scorer = match evaluation.scorer.filter(|_| evaluation.needs(Need::Scorer)) {
            Some(scorer) => {
                let (progress, interrupt) = (self.progress, self.interrupt);
                let scorer =
                    ClipScorer::new(scorer, evaluation.prompts, captions, device, progress, interrupt)?;
                // From now on, the pictures are what is done.
                progress.length(evaluation.pictures(), "pictures");
                Some(scorer)
            }
            None => None,
        };
        let points = match evaluation.points.filter(|_| evaluation.needs(Need::Points)) {
            Some(points) => {
                let predict = |unet: &UNet| Ok(predict(unet, points, evaluation.batch)?);
                Some((points, self.with(self.teacher, predict)?))
            }
            None => None,
        };
        Ok(self.inputs.get_or_init(|| EvaluationInputs {
            prompts: evaluation.prompts,
            conditioning: evaluation.conditioning,
            latent: evaluation.latent,
            scorer,
            captions,
            attributes: evaluation.attributes,
            points,
            batch: evaluation.batch,
        }))
    }

    /// Draws a model's pictures and computes their features.
    fn draw<'u>(
        &self,
        inputs: &EvaluationInputs<'_>,
        unet: &'u UNet,
        checkpoint: &Path,
        interrupt: &Interrupt,
        progress: &dyn Progress,
    ) -> Result<LoadedModel<'u>, MetricError> {
        let evaluation = self.evaluation;
        let Some(vae) = evaluation.vae else { return Ok(LoadedModel { unet, features: None }) };
        let gallery = Gallery {
            prompts: evaluation.prompts,
            vae,
            conditioning: evaluation.conditioning,
            unconditional: evaluation.unconditional,
            latent: inputs.latent,
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
        let pictures = gallery.draw(&generator, &checkpoint.join("images"), interrupt, progress)?;
        let features = inputs.scorer.as_ref().map(|scorer| scorer.picture_features(&pictures)).transpose()?;
        Ok(LoadedModel { unet, features })
    }

    fn publish(&self, checkpoint: &Path, folder: &Path) -> Result<(), MetricError> {
        match self.evaluation.vae {
            Some(_) => gallery::link(&checkpoint.join("images"), &folder.join("images")),
            None => Ok(()),
        }
    }
}
