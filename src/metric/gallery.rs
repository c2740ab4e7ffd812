//! The pictures that a model draws of the prompts, the same noise for every model.
//!
//! Pictures are kept as PNG and judged as 8-bit pictures, as any tool would see them; so what is found in the folder
//! after an interruption is as good as new.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use image::RgbImage;

use super::MetricError;
use crate::backend::Random;
use crate::base::{Interrupt, files};
use crate::data::pictures;
use crate::model::network::Conditioning;
use crate::model::vae::AutoencoderKl;
use crate::sample::{Generator, Noise, Visit};

/// What all models' pictures have in common.
pub struct Gallery<'a> {
    /// Turns latents into pictures.
    pub vae: &'a AutoencoderKl,
    /// The prompts, encoded.
    pub conditioning: &'a Conditioning,
    /// As many times no text.
    pub unconditional: Option<&'a Conditioning>,
    /// Channels, height and width of the latents.
    pub latent: [usize; 3],
    /// Pictures that are drawn together.
    pub batch: usize,
    /// Where noise comes from, one stream per prompt.
    pub random: &'a Random,
}

impl Gallery<'_> {
    /// One picture per prompt, `000.png` and on in `folder`; those that are there already are not drawn again.
    /// `drawn` is told after each batch how many there are.
    pub fn draw(
        &self,
        generator: &Generator<'_>,
        folder: &Path,
        interrupt: &Interrupt,
        drawn: &mut dyn FnMut(usize),
    ) -> Result<Vec<RgbImage>, MetricError> {
        let count = self.conditioning.encoder_hidden_states.dim(0)?;
        let mut all = Vec::with_capacity(count);
        let indices: Vec<usize> = (0..count).collect();
        for batch in indices.chunks(self.batch.max(1)) {
            let paths: Vec<PathBuf> = batch.iter().map(|&index| picture_path(folder, index)).collect();
            if !paths.iter().all(|path| path.is_file()) {
                let pictures = self.draw_batch(generator, batch, &mut |_| Ok(interrupt.check()?))?;
                for (path, picture) in paths.iter().zip(&pictures) {
                    pictures::write(path, picture)?;
                }
                all.extend(pictures);
            } else {
                for path in &paths {
                    all.push(pictures::read(path)?);
                }
            }
            drawn(all.len());
        }
        Ok(all)
    }

    /// The pictures of some prompts, given by index. `observe` may stop the walk by an error.
    pub fn draw_batch(
        &self,
        generator: &Generator<'_>,
        batch: &[usize],
        observe: &mut dyn FnMut(Visit<'_>) -> Result<(), MetricError>,
    ) -> Result<Vec<RgbImage>, MetricError> {
        let part = |texts: &Conditioning| narrow(texts, batch[0], batch.len());
        let conditioning = part(self.conditioning)?;
        let unconditional = self.unconditional.map(part).transpose()?;
        let device = conditioning.encoder_hidden_states.device();
        let noise = Noise { random: self.random, samples: batch, latent: self.latent, device };
        let latents = generator.run(&noise, &conditioning, unconditional.as_ref(), observe)?;
        let pictures = self.vae.decode(&latents)?.to_device(&Device::Cpu)?;
        (0..batch.len()).map(|row| Ok(pictures::from_tensor(&pictures.get(row)?)?)).collect()
    }
}

/// Where a picture lies.
pub fn picture_path(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{index:03}.png"))
}

/// Gives pictures a second place.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), MetricError> {
    files::link_tree(from, to).map_err(|source| MetricError::File { path: to.to_owned(), source })
}

fn narrow(texts: &Conditioning, start: usize, count: usize) -> candle_core::Result<Conditioning> {
    let part = |tensor: &Tensor| tensor.narrow(0, start, count);
    Ok(Conditioning {
        encoder_hidden_states: part(&texts.encoder_hidden_states)?,
        text_embeds: texts.text_embeds.as_ref().map(part).transpose()?,
        time_ids: texts.time_ids.as_ref().map(part).transpose()?,
    })
}
