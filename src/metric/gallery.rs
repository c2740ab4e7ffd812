//! The pictures that a model draws of the prompts, from the same noise for every model, and their latents.
//!
//! Pictures are written as PNG and scored with 8 bits per channel, as any other tool would see them. Pictures that an
//! interrupted run left in the folder are reused.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use image::RgbImage;

use super::error::MetricError;
use super::tensors;
use crate::backend::Random;
use crate::base::{FileError, Interrupt, Progress, copies, kept};
use crate::data;
use crate::model::network::Conditioning;
use crate::model::vae::Autoencoder;
use crate::sample::{Generator, Noise, Visit};

/// What the pictures of all models have in common.
pub struct Gallery<'a> {
    /// The prompts.
    pub prompts: &'a [String],
    /// Decodes latents.
    pub vae: &'a Autoencoder,
    /// The prompts, encoded.
    pub conditioning: &'a Conditioning,
    /// The negative prompt, encoded, once per prompt.
    pub unconditional: Option<&'a Conditioning>,
    /// Channels, height and width of the latents.
    pub latent: [usize; 3],
    /// Pictures per batch.
    pub batch: usize,
    /// The random streams of the noise, one per prompt and seed.
    pub random: &'a Random,
    /// Which of the pictures of each prompt, from 0. The same seed has the same noise whatever the number of seeds.
    pub seed: usize,
}

/// The folder of a gallery's pictures.
pub(super) const IMAGES: &str = "images";
/// The folder of their latents, and the tensor in each of its files.
pub(super) const LATENTS: &str = "latents";

/// How latents came about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    ByModel,
    OfNoise,
}

/// The first stream of a seed is this far from that of the seed before it: more than there are prompts.
const SEED_STRIDE: usize = 1 << 32;

impl Gallery<'_> {
    /// Draws one picture per prompt into `folder`: `images/000.png`, `images/001.png`, ..., and the latents that it was decoded
    /// from: `latents/000.safetensors`, .... A batch whose files are all there and whole is kept. `progress` receives the
    /// number of pictures so far.
    pub fn draw(
        &self,
        generator: &Generator<'_>,
        folder: &Path,
        interrupt: &Interrupt,
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        let observe = &mut |_: Visit<'_>| Ok(interrupt.check()?);
        self.fill(folder, Made::ByModel, progress, &mut |batch| self.latents(generator, batch, observe))
    }

    /// Writes what the autoencoder makes of the noise that the pictures begin with, in the same way: pictures of nothing, as
    /// by a U-Net that predicts nothing.
    pub(super) fn draw_noise(
        &self,
        folder: &Path,
        interrupt: &Interrupt,
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        self.fill(folder, Made::OfNoise, progress, &mut |batch| {
            interrupt.check()?;
            let device = self.conditioning.encoder_hidden_states.device();
            let samples = self.samples(batch);
            let noise = Noise { random: self.random, samples: &samples, latent: self.latent, device };
            Ok(noise.initial()?)
        })
    }

    /// Writes pictures, and the latents of those that a model made, in batches that are given by the indices of their prompts. `make`
    /// returns the latents of a batch.
    fn fill(
        &self,
        folder: &Path,
        made: Made,
        progress: &dyn Progress,
        make: &mut dyn FnMut(&[usize]) -> Result<Tensor, MetricError>,
    ) -> Result<(), MetricError> {
        let count = self.conditioning.encoder_hidden_states.dim(0)?;
        let indices: Vec<usize> = (0..count).collect();
        let (mut done, mut resumes) = (0, true);
        for batch in indices.chunks(self.batch.max(1)) {
            let pictures: Vec<PathBuf> =
                batch.iter().map(|&index| picture_path(&folder.join(IMAGES), index)).collect();
            let kept_latents = batch.iter().filter(|_| made == Made::ByModel);
            let kept_latents: Vec<PathBuf> = kept_latents.map(|&index| latents_path(folder, index)).collect();
            if !are_whole(pictures.iter().chain(&kept_latents), progress)? {
                if std::mem::take(&mut resumes) && done > 0 {
                    progress.resumed(done);
                }
                let latents = make(batch)?;
                for (path, picture) in pictures.iter().zip(&self.paint(&latents, batch, made)?) {
                    kept::write(path, |path| data::pictures::write(path, picture))?;
                }
                for (row, path) in kept_latents.iter().enumerate() {
                    let one = HashMap::from([(LATENTS, latents.get(row)?.to_dtype(DType::F32)?)]);
                    kept::write(path, |path| tensors::write(path, one))?;
                }
            }
            done += batch.len() as u64;
            progress.position(done);
        }
        Ok(())
    }

    /// Draws the pictures of some prompts, given by index. `observe` may stop the sampler with an error.
    pub fn draw_batch(
        &self,
        generator: &Generator<'_>,
        batch: &[usize],
        observe: &mut dyn FnMut(Visit<'_>) -> Result<(), MetricError>,
    ) -> Result<Vec<RgbImage>, MetricError> {
        self.paint(&self.latents(generator, batch, observe)?, batch, Made::ByModel)
    }

    /// The latents of the pictures of some prompts, [n, c, h, w].
    fn latents(
        &self,
        generator: &Generator<'_>,
        batch: &[usize],
        observe: &mut dyn FnMut(Visit<'_>) -> Result<(), MetricError>,
    ) -> Result<Tensor, MetricError> {
        let part = |texts: &Conditioning| texts.narrow(batch[0], batch.len());
        let conditioning = part(self.conditioning)?;
        let unconditional = self.unconditional.map(part).transpose()?;
        let device = conditioning.encoder_hidden_states.device();
        let samples = self.samples(batch);
        let noise = Noise { random: self.random, samples: &samples, latent: self.latent, device };
        let prompts: Vec<&str> = batch.iter().map(|&index| self.prompts[index].as_str()).collect();
        generator.run(&noise, &prompts, &conditioning, unconditional.as_ref(), observe)
    }

    /// Decodes the latents of some prompts.
    fn paint(&self, latents: &Tensor, batch: &[usize], made: Made) -> Result<Vec<RgbImage>, MetricError> {
        let what = match made {
            Made::ByModel => "the prompt",
            Made::OfNoise => "the noise of the prompt",
        };
        let of = |row: usize| format!("{what} `{}`", self.prompts[batch[row]]);
        Ok(data::pictures::paint(self.vae, latents, of)?)
    }

    /// The streams of the noise of some prompts.
    fn samples(&self, batch: &[usize]) -> Vec<usize> {
        batch.iter().map(|&index| self.seed * SEED_STRIDE + index).collect()
    }
}

/// Whether all files of a batch are there and whole.
fn are_whole<'a>(
    paths: impl IntoIterator<Item = &'a PathBuf>,
    progress: &dyn Progress,
) -> Result<bool, MetricError> {
    for path in paths {
        if !kept::is_whole(path, progress)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The path of a picture.
pub fn picture_path(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{index:03}.png"))
}

/// The latents of the pictures of a gallery, [n, c, h, w] on the CPU.
pub(super) fn latents(gallery: &Path, count: usize) -> Result<Tensor, MetricError> {
    let all = (0..count).map(|index| tensors::read(&latents_path(gallery, index), LATENTS));
    Ok(Tensor::stack(&all.collect::<Result<Vec<_>, MetricError>>()?, 0)?)
}

fn latents_path(gallery: &Path, index: usize) -> PathBuf {
    gallery.join(LATENTS).join(format!("{index:03}.safetensors"))
}

/// Links pictures into another folder of the cache.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), MetricError> {
    Ok(copies::transfer_tree(from, to, copies::link).map_err(FileError::at(to))?)
}
