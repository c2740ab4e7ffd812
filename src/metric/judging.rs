//! What needs a scorer: the features of texts and galleries, which are kept, and the metrics computed from them, which
//! are so cheap that they are not. The scorer is loaded when features are missing.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::definition::{Method, Metric};
use super::error::MetricError;
use super::evaluation::{Evaluation, Judge};
use super::features::{BATCH, looks, text_features};
use super::floor::derangement;
use super::gallery::{IMAGES, picture_path};
use super::inputs::{FeatureInputs, SetInputs};
use super::kinds::OfSet;
use super::tensors;
use super::values;
use crate::base::{Interrupt, Progress, kept};
use crate::data::pictures;
use crate::model::PictureModel;

const FEATURES: &str = "features.safetensors";
const TEXTS: &str = "texts.safetensors";

/// One scorer at work.
pub(super) struct Judging<'a> {
    evaluation: &'a Evaluation<'a>,
    judge: &'a Judge<'a>,
    scorer: OnceCell<PictureModel>,
    interrupt: &'a Interrupt,
}

/// A scorer's features of the texts.
pub(super) struct EncodedTexts {
    prompts: Tensor,
    captions: Tensor,
    logit_scale: f64,
}

impl<'a> Judging<'a> {
    pub(super) fn new(
        evaluation: &'a Evaluation<'a>,
        judge: &'a Judge<'a>,
        interrupt: &'a Interrupt,
    ) -> Self {
        Self { evaluation, judge, scorer: OnceCell::new(), interrupt }
    }

    fn scorer(&self) -> Result<&PictureModel, MetricError> {
        match self.scorer.get() {
            Some(scorer) => Ok(scorer),
            None => {
                let scorer = (self.judge.load)()?;
                Ok(self.scorer.get_or_init(|| scorer))
            }
        }
    }

    /// Writes the features of the prompts and captions.
    pub(super) fn encode_texts(&self, folder: &Path, progress: &dyn Progress) -> Result<(), MetricError> {
        let (prompts, captions) = (self.evaluation.prompts, self.evaluation.captions());
        progress.length((prompts.len() + captions.len()) as u64, "captions");
        let PictureModel::Clip(scorer) = self.scorer()? else {
            return Ok(());
        };
        let tensors = HashMap::from([
            ("prompts", text_features(scorer, prompts, progress, self.interrupt)?),
            ("captions", text_features(scorer, captions, progress, self.interrupt)?),
            ("logit_scale", Tensor::new(&[scorer.model.logit_scale()], &Device::Cpu)?),
        ]);
        tensors::write(&folder.join(TEXTS), tensors)
    }

    /// Writes what the scorer makes of one model's pictures. `progress` receives the number of pictures so far.
    pub(super) fn encode_gallery(
        &self,
        model: &str,
        gallery: &Path,
        folders: (&Path, &Path),
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        let prompts = self.evaluation.prompts;
        let place = |index| picture_path(&gallery.join(IMAGES), index);
        let pictures: Vec<PathBuf> = (0..prompts.len()).map(place).collect();
        let others = derangement(prompts.len()).unwrap_or_else(|| vec![0; prompts.len()]);
        let texts: Vec<[&str; 2]> = (0..prompts.len())
            .map(|index| [prompts[index].as_str(), prompts[others[index] as usize].as_str()])
            .collect();
        let of = |index: usize| format!("the picture that `{model}` drew of `{}`", prompts[index]);
        self.encode_pictures(&pictures, &texts, &of, folders, progress)
    }

    /// Writes what the scorer makes of the pictures of noise.
    pub(super) fn encode_noise(
        &self,
        noise: &Path,
        folders: (&Path, &Path),
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        let prompts = self.evaluation.prompts;
        progress.length(prompts.len() as u64, "pictures of noise");
        let pictures: Vec<PathBuf> =
            (0..prompts.len()).map(|index| picture_path(&noise.join(IMAGES), index)).collect();
        let texts: Vec<[&str; 2]> = prompts.iter().map(|prompt| [prompt.as_str(); 2]).collect();
        let of = |index: usize| format!("the picture of noise for `{}`", prompts[index]);
        self.encode_pictures(&pictures, &texts, &of, folders, progress)
    }

    /// Writes what the scorer makes of the real pictures.
    pub(super) fn encode_reference(
        &self,
        pictures: &[PathBuf],
        folders: (&Path, &Path),
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        progress.length(pictures.len() as u64, "real pictures");
        let of = |index: usize| format!("the picture {}", pictures[index].display());
        self.encode_pictures(pictures, &[], &of, folders, progress)
    }

    /// Works in batches that an interrupted run has not to compute again.
    fn encode_pictures(
        &self,
        pictures: &[PathBuf],
        texts: &[[&str; 2]],
        of: &dyn Fn(usize) -> String,
        (folder, checkpoint): (&Path, &Path),
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        let device = self.evaluation.conditioning.encoder_hidden_states.device();
        let mut all = Vec::new();
        for start in (0..pictures.len()).step_by(BATCH) {
            self.interrupt.check()?;
            let end = pictures.len().min(start + BATCH);
            let path = checkpoint.join(format!("features-{start:06}.safetensors"));
            if !kept::is_whole(&path, progress)? {
                let batch = pictures[start..end].iter().map(|path| pictures::read(path));
                let batch = batch.collect::<Result<Vec<_>, _>>()?;
                let texts = texts.get(start..end).unwrap_or_default();
                let features = looks(self.scorer()?, &batch, texts, device, |row| of(start + row))?;
                kept::write(&path, |path| {
                    tensors::write(path, HashMap::from([("features", features.clone())]))
                })?;
            }
            all.push(tensors::read(&path, "features")?);
            progress.position(end as u64);
        }
        tensors::write(&folder.join(FEATURES), HashMap::from([("features", Tensor::cat(&all, 0)?)]))
    }

    /// The values of a metric of pictures and texts: one per prompt, the mean over the seeds. `order` gives the prompt that
    /// each picture is compared with; its own, unless the captions are shuffled.
    pub(super) fn compare(
        &self,
        metric: &'static dyn Metric,
        model: &str,
        texts: &EncodedTexts,
        galleries: &[Tensor],
        order: &[u32],
    ) -> Result<Vec<f64>, MetricError> {
        let Method::Features(measure) = metric.method() else { return Ok(Vec::new()) };
        let prompts: Vec<String> =
            order.iter().map(|&index| self.evaluation.prompts[index as usize].clone()).collect();
        let order = Tensor::new(order, &Device::Cpu)?;
        let mut means = vec![0.0; prompts.len()];
        for pictures in galleries {
            let measured = measure(&FeatureInputs {
                prompts: &prompts,
                prompt_features: &texts.prompts.index_select(&order, 0)?,
                captions: self.evaluation.captions(),
                caption_features: &texts.captions,
                attributes: self.evaluation.attributes,
                pictures,
                logit_scale: texts.logit_scale,
            })?;
            let measured = values::finite(metric.name(), model, measured)?;
            means.iter_mut().zip(measured).for_each(|(mean, value)| *mean += value / galleries.len() as f64);
        }
        Ok(means)
    }
}

/// What the scorer itself gives each prompt, the mean over the seeds: for its own caption or for another one.
pub(super) fn scores(
    metric: &'static dyn Metric,
    model: &str,
    galleries: &[Tensor],
    shuffled: bool,
) -> Result<Vec<f64>, MetricError> {
    let sum = galleries
        .iter()
        .skip(1)
        .try_fold(galleries[0].to_dtype(DType::F64)?, |sum, scores| sum + scores.to_dtype(DType::F64)?)?;
    let mean = (sum / galleries.len() as f64)?;
    values::finite(metric.name(), model, mean.narrow(1, usize::from(shuffled), 1)?.flatten_all()?.to_vec1()?)
}

/// The values of a metric of the pictures of each prompt.
pub(super) fn over_seeds(
    metric: &'static dyn Metric,
    model: &str,
    galleries: &[Tensor],
) -> Result<Vec<f64>, MetricError> {
    let Method::Seeds(measure) = metric.method() else { return Ok(Vec::new()) };
    values::finite(metric.name(), model, measure(galleries)?)
}

/// The value of a metric of a set of pictures.
pub(super) fn of_set(
    metric: &'static dyn Metric,
    model: &str,
    inputs: &SetInputs<'_>,
) -> Result<Option<OfSet>, MetricError> {
    let Method::Set(measure) = metric.method() else { return Ok(None) };
    let found = measure(inputs)?;
    values::finite(metric.name(), model, vec![found.value])?;
    Ok(Some(found))
}

impl EncodedTexts {
    /// Reads what [`Judging::encode_texts`] wrote.
    pub(super) fn read(folder: &Path) -> Result<Self, MetricError> {
        let tensor = |name| tensors::read(&folder.join(TEXTS), name);
        let logit_scale = tensor("logit_scale")?.squeeze(0)?.to_scalar()?;
        Ok(Self { prompts: tensor("prompts")?, captions: tensor("captions")?, logit_scale })
    }
}

/// Reads what [`Judging::encode_gallery`] wrote.
pub(super) fn features(folder: &Path) -> Result<Tensor, MetricError> {
    tensors::read(&folder.join(FEATURES), "features")
}
