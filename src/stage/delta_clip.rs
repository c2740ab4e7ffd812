//! The pictures and the scorer of the criterion `delta-clip`, which needs all parts of a model, not only its U-Net.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::resolved_file::path_of;
use super::sources::{prompts_file, scorer_folder};
use super::{BadValue, Context, Drawing, FileInput, ResolvedFile, StageError};
use crate::base::{Manifest, Whole};
use crate::data::prompts;
use crate::metric::{Gallery, MetricError, clip_scores, cosines, picture_features, text_features};
use crate::model::network::Conditioning;
use crate::model::unet::UNet;
use crate::model::vae::Autoencoder;
use crate::model::{Scorer, ScorerFolders};
use crate::sample::{self, NoiseSchedule};
use crate::score::{ClipScore, ScoreError};

/// `delta-clip:` of `use: score`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct DeltaClip {
    /// A CLIPModel directory, which scores pictures against their prompts.
    scorer: PathBuf,
    /// A text file with the prompts of the pictures, one per line.
    prompts: PathBuf,
    /// The number of prompts to draw without each unit, from the first. Default 16: affordable, but too few to distinguish similar units.
    #[serde(default = "default_pictures")]
    pictures: Whole<1, 1_000_000>,
    /// How pictures are drawn.
    #[serde(default)]
    drawing: Drawing,
}

fn default_pictures() -> Whole<1, 1_000_000> {
    Whole::new(16)
}

impl DeltaClip {
    pub(super) fn describe(&self, manifest: &mut Manifest) {
        manifest.field("delta-clip.pictures", self.pictures);
        self.drawing.describe(manifest, "delta-clip.drawing");
    }

    pub(super) fn files(&self) -> Vec<FileInput<'_>> {
        vec![
            scorer_folder("delta-clip.scorer", &self.scorer),
            prompts_file("delta-clip.prompts", &self.prompts, |count| count.min(self.pictures.get())),
        ]
    }

    pub(super) fn check(&self) -> Result<(), BadValue> {
        self.drawing.check(|field| format!("delta-clip.drawing.{field}"))
    }

    /// Checks that the prompts can be read and that the parts of the scorer fit each other.
    pub(super) fn check_files(&self, files: &BTreeMap<String, ResolvedFile>) -> Result<(), StageError> {
        prompts::read(path_of(files, "delta-clip.prompts"))?;
        ScorerFolders::one(path_of(files, "delta-clip.scorer")).check()?;
        Ok(())
    }

    /// Loads everything that draws and scores pictures, except the U-Net.
    pub(super) fn open(&self, context: &Context<'_>, model: &Model) -> Result<PictureScorer<'_>, StageError> {
        let device = context.device;
        let mut prompts = prompts::read(context.file("delta-clip.prompts"))?;
        prompts.truncate(self.pictures.get());
        let count = prompts.len();
        let encoder = self.drawing.encoder(&model.directory, model.dtype, device)?;
        let (conditioning, unconditional) =
            self.drawing.texts(&encoder, &prompts, context.progress, context.interrupt)?;
        let scorer = ScorerFolders::one(context.file("delta-clip.scorer"));
        Ok(PictureScorer {
            drawing: &self.drawing,
            conditioning,
            unconditional,
            prompts,
            latent: self.drawing.latent(&model.directory, count, model.dtype, device)?,
            schedule: NoiseSchedule::from_config(&model.directory.scheduler_config()?)?,
            vae: self.drawing.vae(&model.directory, model.dtype, device)?,
            scorer: scorer.load(candle_core::DType::F32, device)?,
        })
    }
}

/// Draws pictures with any U-Net and scores them.
pub(super) struct PictureScorer<'a> {
    drawing: &'a Drawing,
    prompts: Vec<String>,
    latent: [usize; 3],
    conditioning: Conditioning,
    unconditional: Conditioning,
    schedule: NoiseSchedule,
    vae: Autoencoder,
    scorer: Scorer,
}

impl PictureScorer<'_> {
    /// A function that gives the mean CLIP score of the pictures of a U-Net, with the same noise for every U-Net.
    pub(super) fn clip_score<'s>(
        &'s self,
        context: &'s Context<'_>,
    ) -> Result<Box<ClipScore<'s>>, StageError> {
        context.progress.length(self.prompts.len() as u64, "captions");
        let prompts = text_features(&self.scorer, &self.prompts, context.progress, context.interrupt)?;
        Ok(Box::new(move |unet: &UNet| self.mean_clip_score(unet, &prompts, context).map_err(sorted)))
    }

    fn mean_clip_score(
        &self,
        unet: &UNet,
        prompts: &Tensor,
        context: &Context<'_>,
    ) -> Result<f64, MetricError> {
        let gallery = Gallery {
            prompts: &self.prompts,
            vae: &self.vae,
            conditioning: &self.conditioning,
            unconditional: Some(&self.unconditional),
            latent: self.latent,
            batch: self.drawing.batch.get(),
            random: &context.random,
            seed: 0,
        };
        let generator = self.drawing.generator(unet, &self.schedule);
        let mut pictures = Vec::with_capacity(self.prompts.len());
        let indices: Vec<usize> = (0..self.prompts.len()).collect();
        for batch in indices.chunks(self.drawing.batch.get()) {
            let observe = &mut |_: sample::Visit<'_>| Ok(context.interrupt.check()?);
            pictures.extend(gallery.draw_batch(&generator, batch, observe)?);
        }
        let of = |index: usize| format!("the picture of `{}`", self.prompts[index]);
        let features = picture_features(&self.scorer, &pictures, context.device, of)?;
        let scores = clip_scores(&cosines(&features, prompts)?);
        Ok(scores.iter().sum::<f64>() / scores.len() as f64)
    }
}

/// Classifies an error; an interruption stays one.
fn sorted(error: MetricError) -> ScoreError {
    match error {
        MetricError::Interrupted(interrupted) => ScoreError::Interrupted(interrupted),
        MetricError::Tensor(error) => ScoreError::Tensor(error),
        other => ScoreError::Pictures(Box::new(other)),
    }
}
