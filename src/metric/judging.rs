//! What needs a scorer: the features of texts and galleries, which are kept, and the metrics computed from them, which
//! are so cheap that they are not. The scorer is loaded when features are missing.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor, safetensors};

use super::definition::{Method, Metric};
use super::error::MetricError;
use super::evaluation::{Evaluation, Judge};
use super::features::{BATCH, picture_features, text_features};
use super::gallery::{IMAGES, picture_path};
use super::inputs::FeatureInputs;
use super::values;
use crate::base::{FileError, Interrupt, Progress, kept};
use crate::data::pictures;
use crate::model::Scorer;
use crate::model::files::weights;

const FEATURES: &str = "features.safetensors";
const TEXTS: &str = "texts.safetensors";

/// One scorer at work.
pub(super) struct Judging<'a> {
    evaluation: &'a Evaluation<'a>,
    judge: &'a Judge<'a>,
    scorer: OnceCell<Scorer>,
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

    fn scorer(&self) -> Result<&Scorer, MetricError> {
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
        let scorer = self.scorer()?;
        let tensors = HashMap::from([
            ("prompts", text_features(scorer, prompts, progress, self.interrupt)?),
            ("captions", text_features(scorer, captions, progress, self.interrupt)?),
            ("logit_scale", Tensor::new(&[scorer.model.logit_scale()], &Device::Cpu)?),
        ]);
        write(&folder.join(TEXTS), tensors)
    }

    /// Writes the features of one model's pictures, in batches that an interrupted run has not to compute again.
    /// `progress` receives the number of pictures so far.
    pub(super) fn encode_pictures(
        &self,
        model: &str,
        gallery: &Path,
        (folder, checkpoint): (&Path, &Path),
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        let prompts = self.evaluation.prompts;
        let device = self.evaluation.conditioning.encoder_hidden_states.device();
        let mut all = Vec::new();
        for start in (0..prompts.len()).step_by(BATCH) {
            self.interrupt.check()?;
            let end = prompts.len().min(start + BATCH);
            let path = checkpoint.join(format!("features-{start:06}.safetensors"));
            if !kept::is_whole(&path, progress)? {
                let read = |index| pictures::read(&picture_path(&gallery.join(IMAGES), index));
                let batch = (start..end).map(read).collect::<Result<Vec<_>, _>>()?;
                let of =
                    |row: usize| format!("the picture that `{model}` drew of `{}`", prompts[start + row]);
                let features = picture_features(self.scorer()?, &batch, device, of)?;
                kept::write(&path, |path| write(path, HashMap::from([("features", features.clone())])))?;
            }
            all.push(tensor(&path, "features")?);
            progress.position(end as u64);
        }
        write(&folder.join(FEATURES), HashMap::from([("features", Tensor::cat(&all, 0)?)]))
    }

    /// The values of a metric: one per prompt, the mean over the seeds. `order` gives the prompt that each picture is
    /// compared with; its own, unless the captions are shuffled.
    pub(super) fn measure(
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

impl EncodedTexts {
    /// Reads what [`Judging::encode_texts`] wrote.
    pub(super) fn read(folder: &Path) -> Result<Self, MetricError> {
        let tensor = |name| tensor(&folder.join(TEXTS), name);
        let logit_scale = tensor("logit_scale")?.squeeze(0)?.to_scalar()?;
        Ok(Self { prompts: tensor("prompts")?, captions: tensor("captions")?, logit_scale })
    }
}

/// Reads what [`Judging::encode_pictures`] wrote.
pub(super) fn features(folder: &Path) -> Result<Tensor, MetricError> {
    tensor(&folder.join(FEATURES), "features")
}

fn write(path: &Path, tensors: HashMap<&str, Tensor>) -> Result<(), MetricError> {
    Ok(weights::write_with(path, tensors, None).map_err(FileError::at(path))?)
}

fn tensor(path: &Path, name: &str) -> Result<Tensor, MetricError> {
    let mut tensors = safetensors::load(path, &Device::Cpu)?;
    let missing = || candle_core::Error::CannotFindTensor { path: name.to_owned() };
    Ok(tensors.remove(name).ok_or_else(missing)?)
}
