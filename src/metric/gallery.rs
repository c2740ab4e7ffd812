//! The pictures that a model draws of the prompts, from the same noise for every model.
//!
//! Pictures are written as PNG and scored with 8 bits per channel, as any other tool would see them. Pictures that an
//! interrupted run left in the folder are reused.

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::error::MetricError;
use crate::backend::Random;
use crate::base::{FileError, Interrupt, Progress, copies, kept};
use crate::data::pictures;
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

/// The first stream of a seed is this far from that of the seed before it: more than there are prompts.
const SEED_STRIDE: usize = 1 << 32;

impl Gallery<'_> {
    /// Draws one picture per prompt into `folder`: `000.png`, `001.png`, ... A batch whose files are all there and whole is kept.
    /// `progress` receives the number of pictures so far.
    pub fn draw(
        &self,
        generator: &Generator<'_>,
        folder: &Path,
        interrupt: &Interrupt,
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        self.fill(folder, progress, |batch| {
            self.draw_batch(generator, batch, &mut |_| Ok(interrupt.check()?))
        })
    }

    /// Writes what the autoencoder makes of the noise that the pictures begin with, in the same way: pictures of nothing, as
    /// by a U-Net that predicts nothing.
    pub(super) fn draw_noise(
        &self,
        folder: &Path,
        interrupt: &Interrupt,
        progress: &dyn Progress,
    ) -> Result<(), MetricError> {
        self.fill(folder, progress, |batch| {
            interrupt.check()?;
            let device = self.conditioning.encoder_hidden_states.device();
            let samples = self.samples(batch);
            let noise = Noise { random: self.random, samples: &samples, latent: self.latent, device };
            let of = |row: usize| format!("the noise of the prompt `{}`", self.prompts[batch[row]]);
            Ok(pictures::paint(self.vae, &noise.initial()?, of)?)
        })
    }

    /// Writes pictures in batches, given by the indices of their prompts.
    fn fill(
        &self,
        folder: &Path,
        progress: &dyn Progress,
        make: impl Fn(&[usize]) -> Result<Vec<RgbImage>, MetricError>,
    ) -> Result<(), MetricError> {
        let count = self.conditioning.encoder_hidden_states.dim(0)?;
        let indices: Vec<usize> = (0..count).collect();
        let (mut done, mut resumes) = (0, true);
        for batch in indices.chunks(self.batch.max(1)) {
            let paths: Vec<PathBuf> = batch.iter().map(|&index| picture_path(folder, index)).collect();
            if !are_whole(&paths, progress)? {
                if std::mem::take(&mut resumes) && done > 0 {
                    progress.resumed(done);
                }
                for (path, picture) in paths.iter().zip(&make(batch)?) {
                    kept::write(path, |path| pictures::write(path, picture))?;
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
        let part = |texts: &Conditioning| texts.narrow(batch[0], batch.len());
        let conditioning = part(self.conditioning)?;
        let unconditional = self.unconditional.map(part).transpose()?;
        let device = conditioning.encoder_hidden_states.device();
        let samples = self.samples(batch);
        let noise = Noise { random: self.random, samples: &samples, latent: self.latent, device };
        let prompts: Vec<&str> = batch.iter().map(|&index| self.prompts[index].as_str()).collect();
        let latents = generator.run(&noise, &prompts, &conditioning, unconditional.as_ref(), observe)?;
        Ok(pictures::paint(self.vae, &latents, |row| format!("the prompt `{}`", prompts[row]))?)
    }

    /// The streams of the noise of some prompts.
    fn samples(&self, batch: &[usize]) -> Vec<usize> {
        batch.iter().map(|&index| self.seed * SEED_STRIDE + index).collect()
    }
}

/// Whether all pictures of a batch are there and whole.
fn are_whole(paths: &[PathBuf], progress: &dyn Progress) -> Result<bool, MetricError> {
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

/// Links pictures into another folder of the cache.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), MetricError> {
    Ok(copies::transfer_tree(from, to, copies::link).map_err(FileError::at(to))?)
}
