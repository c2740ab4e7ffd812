//! Pictures of some prompts while a student is trained, drawn with few steps.

use std::fs;
use std::path::Path;

use candle_core::Device;
use image::ImageFormat;

use super::error::DistillError;
use super::validation::{PICTURES, PROMPTS, picture_name, picture_path};
use super::validation_parameters::ValidationParameters;
use crate::backend::Random;
use crate::base::{FileError, files, kept};
use crate::data::pictures;
use crate::model::network::Conditioning;
use crate::model::unet::UNet;
use crate::model::vae::Autoencoder;
use crate::sample::{Generator, Noise, NoiseSchedule, Sampler};
use crate::train::watch::{Drawn, Watcher};

/// What all pictures have in common.
pub struct Easel<'a> {
    /// Prompts, steps and guidance.
    pub parameters: &'a ValidationParameters,
    /// Decodes latents.
    pub vae: Autoencoder,
    /// The prompts, encoded.
    pub conditioning: Conditioning,
    /// The empty prompt, encoded, once per prompt.
    pub unconditional: Conditioning,
    /// Channels, height and width of the latents.
    pub latent: [usize; 3],
    /// The sampler.
    pub sampler: &'static dyn Sampler,
    /// The folder of the training; the pictures are in a folder below it.
    pub folder: &'a Path,
}

impl Easel<'_> {
    /// Draws a picture of each prompt after so many steps, always from the same noise.
    pub(super) fn draw(
        &self,
        unet: &UNet,
        step: u64,
        schedule: &NoiseSchedule,
        random: &Random,
        device: &Device,
        watcher: &dyn Watcher,
    ) -> Result<(), DistillError> {
        let (steps, guidance_scale) = (self.parameters.steps.get(), self.parameters.guidance_scale.get());
        let generator = Generator { unet, schedule, sampler: self.sampler, steps, guidance_scale };
        let place = self.folder.join(PICTURES);
        fs::create_dir_all(&place).map_err(DistillError::file(&place))?;
        let prompts = place.join(PROMPTS);
        files::write_json(&prompts, &self.parameters.prompts).map_err(DistillError::file(&prompts))?;
        for (index, prompt) in self.parameters.prompts.iter().enumerate() {
            let noise = Noise { random, samples: &[index], latent: self.latent, device };
            let (text, empty) = (self.conditioning.narrow(index, 1)?, self.unconditional.narrow(index, 1)?);
            let latents = generator.run::<DistillError>(
                &noise,
                &[prompt.as_str()],
                &text,
                Some(&empty),
                &mut |_| Ok(()),
            )?;
            let of = |_| format!("the prompt `{prompt}` after step {step}");
            for picture in pictures::paint(&self.vae, &latents, of)? {
                let mut png = std::io::Cursor::new(Vec::new());
                picture.write_to(&mut png, ImageFormat::Png).expect("a picture in memory is written");
                let (path, png) = (picture_path(self.folder, step, index), png.into_inner());
                kept::write(&path, |path| fs::write(path, &png).map_err(FileError::at(path)))?;
                let (name, size) = (picture_name(index), picture.dimensions());
                watcher.picture(&Drawn { step, name: &name, png: &png, size });
            }
        }
        Ok(())
    }
}
