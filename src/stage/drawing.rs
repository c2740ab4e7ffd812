//! The `drawing:` block: how pictures and sampling trajectories are drawn. Every stage that draws has these
//! parameters. `laptop-diff generate` fills the same struct from its flags, so that both are checked by the same
//! code.

use candle_core::{DType, Device};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::needs::{KnownModel, Needs, Outlook};
use super::size::PictureSize;
use super::{BadValue, StageError, memory};
use crate::base::bounded::Guidance;
use crate::base::names::UnknownName;
use crate::base::{Interrupt, Manifest, Progress, Real, Whole};
use crate::data::Encoder;
use crate::model::ModelDirectory;
use crate::model::network::Conditioning;
use crate::model::unet::{UNet, UNetConfig};
use crate::model::vae::{Autoencoder, TileSide, VaeConfig};
use crate::sample::{self, Generator, NoiseSchedule, Sampler};

/// The default sampler: good from about 20 steps, and deterministic.
pub const DEFAULT_SAMPLER: &str = "dpm-solver++-2m";

/// `drawing:`: how pictures, or the trajectories towards them, are drawn.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Drawing {
    /// The sampler (`laptop-diff list samplers`). Default `dpm-solver++-2m`; in `calibrate`, `ddim`.
    pub sampler: Option<String>,
    /// Steps of the sampler. Default 25, as in BK-SDM's protocol.
    pub steps: Whole<1, 10_000>,
    /// Guidance scale; values up to 1 disable guidance, at half the cost. Default 7.5, Stable Diffusion's.
    pub guidance_scale: Real<Guidance>,
    /// Negative prompt. Default: the empty prompt.
    pub negative_prompt: String,
    /// Width and height of the pictures in pixels, such as `512x768`. Default: the size that the U-Net was trained for.
    pub size: Option<PictureSize>,
    /// Runs the autoencoder on overlapping tiles with this many latent pixels a side, which saves memory and changes
    /// the result slightly. Default: the whole picture at once.
    pub vae_tile: Option<TileSide>,
    /// Samples drawn together; lower it if memory runs out. Default 16.
    pub batch: Whole<1, 65_536>,
}

impl Default for Drawing {
    fn default() -> Self {
        Self {
            sampler: None,
            // BK-SDM's protocol (Kim et al. 2024).
            steps: Whole::new(25),
            // Stable Diffusion's.
            guidance_scale: Real::new(7.5),
            negative_prompt: String::new(),
            size: None,
            vae_tile: None,
            // Enough to keep a small machine busy, little enough for its memory.
            batch: Whole::new(16),
        }
    }
}

impl Drawing {
    /// The default of stages that take points from trajectories: `ddim`, whose steps are spread evenly.
    pub(super) fn along_trajectories() -> Self {
        Self { sampler: Some("ddim".to_owned()), ..Self::default() }
    }

    /// For `deserialize_with`: a block whose sampler is that of [`Drawing::along_trajectories`] unless it names one.
    pub(super) fn deserialize_along_trajectories<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Self, D::Error> {
        let given = Self::deserialize(deserializer)?;
        Ok(Self { sampler: given.sampler.or(Self::along_trajectories().sampler), ..given })
    }

    /// Adds every field, its name after `block`, which is the block's path in the stage: `drawing`.
    pub(super) fn describe(&self, manifest: &mut Manifest, block: &str) {
        self.describe_latents(manifest, block);
        self.describe_tiles(manifest, block);
    }

    /// Adds the fields that matter where latents are drawn and never decoded.
    pub(super) fn describe_latents(&self, manifest: &mut Manifest, block: &str) {
        manifest
            .field(&format!("{block}.sampler"), self.sampler_name())
            .field(&format!("{block}.steps"), self.steps)
            .float(&format!("{block}.guidance-scale"), self.guidance_scale.get())
            .field(&format!("{block}.negative-prompt"), &self.negative_prompt);
        self.describe_batch(manifest, block);
    }

    /// Adds the fields that matter where pictures are cropped and encoded.
    pub(super) fn describe_cropping(&self, manifest: &mut Manifest, block: &str) {
        self.describe_batch(manifest, block);
        self.describe_tiles(manifest, block);
    }

    fn describe_batch(&self, manifest: &mut Manifest, block: &str) {
        let size = self.size.map_or_else(|| "as trained".to_owned(), |size| size.to_string());
        manifest.field(&format!("{block}.size"), size).field(&format!("{block}.batch"), self.batch);
    }

    fn describe_tiles(&self, manifest: &mut Manifest, block: &str) {
        let side = self.vae_tile.map_or_else(|| "whole".to_owned(), |side| side.to_string());
        manifest.field(&format!("{block}.vae-tile"), side);
    }

    /// Checks what the types do not. `name` gives a field's name as the user wrote it: `drawing.sampler`, `--sampler`.
    pub fn check(&self, name: impl Fn(&str) -> String) -> Result<(), BadValue> {
        self.find_sampler().map(drop).map_err(|error| BadValue::unknown(name("sampler"), &error))
    }

    fn sampler_name(&self) -> &str {
        self.sampler.as_deref().unwrap_or(DEFAULT_SAMPLER)
    }

    fn find_sampler(&self) -> Result<&'static dyn Sampler, UnknownName> {
        sample::find(self.sampler_name())
    }

    /// The sampler. Call [`Drawing::check`] first.
    pub fn sampler(&self) -> &'static dyn Sampler {
        self.find_sampler().unwrap_or_else(|_| panic!("BUG: the name of the sampler was not checked"))
    }

    /// A U-Net with these parameters.
    pub fn generator<'a>(&self, unet: &'a UNet, schedule: &'a NoiseSchedule) -> Generator<'a> {
        Generator {
            unet,
            schedule,
            sampler: self.sampler(),
            steps: self.steps.get(),
            guidance_scale: self.guidance_scale.get(),
        }
    }

    /// Channels, height and width of the latents that a model's U-Net draws. Fails if not even one batch of `count`
    /// samples fits into memory.
    pub fn latent(
        &self,
        directory: &ModelDirectory,
        count: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<[usize; 3], StageError> {
        let unet = directory.unet_config()?;
        let (height, width) = match self.size {
            None => unet.sample_size,
            Some(size) => {
                size.in_latents(directory.vae_config()?.downscale()).map_err(StageError::pipeline)?
            }
        };
        let batch = self.batch.get().min(count);
        let vae = directory.vae_config().ok();
        let needed = self.activations(&unet, vae.as_ref(), batch, (height, width), dtype);
        let what = || format!("{batch} samples with latents of {height}x{width}");
        memory::require(needed, device, what, "`batch` or `size`")?;
        Ok([unet.in_channels, height, width])
    }

    /// Bytes of the activations of so many samples: in the U-Net, or in the autoencoder if that takes more.
    pub(super) fn activations(
        &self,
        unet: &UNetConfig,
        vae: Option<&VaeConfig>,
        batch: usize,
        latents: (usize, usize),
        dtype: DType,
    ) -> u64 {
        let evaluated = if self.guidance_scale.get() > 1.0 { 2 * batch } else { batch };
        let vae = vae.filter(|_| self.vae_tile.is_none());
        let decoding = vae.map_or(0, |vae| memory::decoding(vae, batch, latents, dtype));
        memory::pass(unet, evaluated, latents, dtype).max(decoding)
    }

    /// Height and width of the latents of a model that is known before it is loaded. A size that does not fit is refused
    /// when the stage runs.
    pub(super) fn latents_of(&self, model: &KnownModel) -> (usize, usize) {
        let asked = self.size.zip(model.vae.as_ref());
        asked.and_then(|(size, vae)| size.in_latents(vae.downscale()).ok()).unwrap_or(model.unet.sample_size)
    }

    /// What drawing `count` samples with a model takes.
    pub(super) fn needs(&self, model: &KnownModel, count: usize, outlook: &Outlook<'_>) -> Needs {
        let (dtype, batch) = (outlook.activations(model.dtype), self.batch.get().min(count));
        let latents = self.latents_of(model);
        let activations = self.activations(&model.unet, model.vae.as_ref(), batch, latents, dtype);
        Needs::running(UNet::bytes(&model.unet, model.dtype), activations)
    }

    /// The model's text side, for pictures of this size.
    pub fn encoder(
        &self,
        directory: &ModelDirectory,
        dtype: DType,
        device: &Device,
    ) -> Result<Encoder, StageError> {
        let encoder = Encoder::open(directory, dtype, device)?;
        Ok(match self.size {
            None => encoder,
            Some(size) => encoder.sized((size.height, size.width)),
        })
    }

    /// The model's autoencoder, tiled as asked.
    pub fn vae(
        &self,
        directory: &ModelDirectory,
        dtype: DType,
        device: &Device,
    ) -> Result<Autoencoder, StageError> {
        Ok(directory.vae(dtype, device)?.tiled(self.vae_tile))
    }

    /// The conditioning of each prompt, and that of the negative prompt as many times. Prompts that are too long are
    /// noted.
    pub fn texts(
        &self,
        encoder: &Encoder,
        prompts: &[String],
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<(Conditioning, Conditioning), StageError> {
        encoder
            .note_truncated(prompts.iter().chain([&self.negative_prompt]).map(String::as_str), progress)?;
        let conditioning = encoder.encode_all(prompts, progress, interrupt)?;
        Ok((conditioning, encoder.unconditional(&self.negative_prompt, prompts.len())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(text: &str) -> BadValue {
        let drawing: Drawing = serde_yaml::from_str(text).expect("the types are right");
        drawing.check(|field| format!("drawing.{field}")).expect_err("the value is bad")
    }

    #[test]
    fn an_unknown_sampler_is_named_with_its_block() {
        let found = bad("sampler: eular");
        assert_eq!(found.name, "drawing.sampler");
        assert!(found.message.contains("unknown sampler `eular`"), "{}", found.message);
        assert!(found.help.is_some_and(|help| help.contains("did you mean `euler`")));
    }

    #[test]
    fn a_block_for_trajectories_keeps_the_sampler_that_it_names() -> Result<(), serde_yaml::Error> {
        let read = |text| {
            Drawing::deserialize_along_trajectories(serde_yaml::Deserializer::from_str(text))
                .map(|drawing| drawing.sampler_name().to_owned())
        };
        assert_eq!(read("{ steps: 3 }")?, "ddim");
        assert_eq!(read("{ sampler: euler }")?, "euler");
        assert_eq!(Drawing::default().sampler_name(), DEFAULT_SAMPLER);
        Ok(())
    }
}
