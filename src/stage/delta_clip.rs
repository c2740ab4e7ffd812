//! What `delta-clip` draws and who judges: the one criterion of `use: score` that needs a whole pipeline.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::{BadValue, Context, FileInput, StageError};
use crate::base::Manifest;
use crate::data::{Encoder, prompts};
use crate::metric::{Gallery, Judge, MetricError};
use crate::model::unet::{Conditioning, UNet};
use crate::model::vae::{AutoencoderKl, TileSide};
use crate::model::{ModelDirectory, Scorer};
use crate::sample::{self, Generator, NoiseSchedule};
use crate::score::{ClipScore, ScoreError};

/// `delta-clip:` of `use: score`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct DeltaClip {
    /// A CLIPModel directory, which compares pictures with their prompts.
    scorer: PathBuf,
    /// A text file, one prompt a line: what is drawn.
    prompts: PathBuf,
    /// How many of the prompts are drawn without each unit. Default 16: few enough to be done, too few to tell close units apart.
    #[serde(default = "default_pictures")]
    pictures: usize,
    /// The sampler (`laptop-diff list samplers`). Default `dpm-solver++-2m`.
    #[serde(default = "super::defaults::sampler")]
    sampler: String,
    /// Steps of the sampler per picture. Default 25, BK-SDM's protocol.
    #[serde(default = "super::defaults::steps")]
    steps: usize,
    /// Guidance; up to 1 there is none, at half the cost. Default 7.5, Stable Diffusion's.
    #[serde(default = "super::defaults::guidance_scale")]
    guidance_scale: f64,
    /// What guidance goes away from. Default: no text.
    #[serde(default)]
    negative_prompt: String,
    /// Decodes pictures by overlapping tiles of this many latent pixels a side. Default: whole.
    vae_tile: Option<TileSide>,
    /// Pictures drawn together: as memory allows. Default 16.
    #[serde(default = "super::defaults::batch")]
    batch: usize,
}

fn default_pictures() -> usize {
    16
}

impl DeltaClip {
    pub(super) fn describe(&self, manifest: &mut Manifest) {
        manifest
            .field("delta-clip.pictures", self.pictures)
            .field("delta-clip.sampler", &self.sampler)
            .field("delta-clip.steps", self.steps)
            .float("delta-clip.guidance-scale", self.guidance_scale)
            .field("delta-clip.negative-prompt", &self.negative_prompt)
            .field("delta-clip.vae-tile", super::defaults::tile_text(self.vae_tile))
            .field("delta-clip.batch", self.batch);
    }

    pub(super) fn files(&self) -> Vec<FileInput<'_>> {
        vec![
            FileInput::path("delta-clip.scorer", &self.scorer),
            FileInput::path("delta-clip.prompts", &self.prompts),
        ]
    }

    pub(super) fn check(&self) -> Result<(), BadValue> {
        for (name, value) in [
            ("delta-clip.pictures", self.pictures),
            ("delta-clip.steps", self.steps),
            ("delta-clip.batch", self.batch),
        ] {
            if value == 0 {
                return Err(BadValue::new(name, format!("`{name}` is 0; it must be at least 1")));
            }
        }
        sample::find(&self.sampler)
            .map(drop)
            .map_err(|error| BadValue::new("delta-clip.sampler", error.to_string()))
    }

    /// Loads what draws and what judges.
    pub(super) fn open(&self, context: &Context<'_>, model: &Model) -> Result<Studio<'_>, StageError> {
        let device = context.device;
        let mut prompts = prompts::read(context.file("delta-clip.prompts"))?;
        prompts.truncate(self.pictures);
        let encoder = Encoder::open(&model.directory, model.dtype, device)?;
        let read = prompts.iter().chain([&self.negative_prompt]).map(String::as_str);
        encoder.note_truncated(read, context.progress)?;
        let scorer = ModelDirectory::open(context.file("delta-clip.scorer"))?;
        Ok(Studio {
            parameters: self,
            conditioning: encoder.encode(&prompts)?,
            unconditional: encoder.unconditional(&self.negative_prompt, prompts.len())?,
            prompts,
            schedule: NoiseSchedule::from_config(&model.directory.scheduler_config()?)?,
            vae: model.directory.vae(model.dtype, device)?.tiled(self.vae_tile),
            scorer: scorer.scorer(candle_core::DType::F32, device)?,
        })
    }
}

/// Everything for pictures but the U-Net.
pub(super) struct Studio<'a> {
    parameters: &'a DeltaClip,
    prompts: Vec<String>,
    conditioning: Conditioning,
    unconditional: Conditioning,
    schedule: NoiseSchedule,
    vae: AutoencoderKl,
    scorer: Scorer,
}

impl Studio<'_> {
    /// What gives the mean CLIP score of a U-Net's pictures, from the same noise for every U-Net.
    pub(super) fn critic<'s>(&'s self, context: &'s Context<'_>) -> Result<Box<ClipScore<'s>>, StageError> {
        let judge = Judge::new(&self.scorer, &self.prompts, &self.prompts, context.device)?;
        Ok(Box::new(move |unet: &UNet| self.clip_score(unet, &judge, context).map_err(sorted)))
    }

    fn clip_score(&self, unet: &UNet, judge: &Judge<'_>, context: &Context<'_>) -> Result<f64, MetricError> {
        let (height, width) = unet.config().sample_size;
        let gallery = Gallery {
            vae: &self.vae,
            conditioning: &self.conditioning,
            unconditional: Some(&self.unconditional),
            latent: [unet.config().in_channels, height, width],
            batch: self.parameters.batch,
            random: &context.random,
        };
        let generator = Generator {
            unet,
            schedule: &self.schedule,
            sampler: sample::find(&self.parameters.sampler)?,
            steps: self.parameters.steps,
            guidance_scale: self.parameters.guidance_scale,
        };
        let mut pictures = Vec::with_capacity(self.prompts.len());
        let indices: Vec<usize> = (0..self.prompts.len()).collect();
        for batch in indices.chunks(self.parameters.batch) {
            let observe = &mut |_: sample::Visit<'_>| Ok(context.interrupt.check()?);
            pictures.extend(gallery.draw_batch(&generator, batch, observe)?);
        }
        let scores = judge.clip_scores(&judge.look(&pictures)?)?;
        Ok(scores.iter().sum::<f64>() / scores.len() as f64)
    }
}

/// A wish to stop stays one.
fn sorted(error: MetricError) -> ScoreError {
    match error {
        MetricError::Interrupted(interrupted) => ScoreError::Interrupted(interrupted),
        MetricError::Tensor(error) => ScoreError::Tensor(error),
        other => ScoreError::Pictures(Box::new(other)),
    }
}
