//! `laptop-diff generate`: pictures of a prompt, with any model directory that the pipelines read or make.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use candle_core::Device;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::error::CliError;
use super::options::ComputeArguments;
use super::output::{print, print_json};
use crate::backend::{Dtype, Random};
use crate::base::Progress;
use crate::config::settings::Layer;
use crate::data::{Encoder, pictures};
use crate::metric::{Gallery, MetricError, picture_path};
use crate::model::ModelDirectory;
use crate::model::vae::TileSide;
use crate::run::signals;
use crate::sample::{self, Generator, NoiseSchedule, SAMPLERS};
use crate::stage::{StageError, defaults};
use crate::ui::Alone;

/// Draw pictures of a prompt with a teacher or a pruned model
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff generate examples/nano-sd --prompt 'a red circle on a blue ground'
  laptop-diff generate runs/nano50/student --prompt 'a star' --count 4 --seed 7
  laptop-diff generate sdxl --prompt 'a harbour at dawn' --size 1344x768 --dtype bf16 --vae-tile 64

The pictures are 000.png, 001.png and on in the output folder; what has these names there is replaced.
The same command draws the same pictures again.")]
pub(super) struct Generate {
    /// A diffusers model directory
    model: PathBuf,
    /// What to draw
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// What guidance goes away from
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    negative_prompt: String,
    /// The root of all random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many pictures
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Steps of the sampler
    #[arg(long, default_value_t = defaults::steps())]
    steps: usize,
    /// How far to go beyond the prediction for the negative prompt; up to 1 there is no guidance, at half the cost
    #[arg(long, default_value_t = defaults::guidance_scale())]
    guidance: f64,
    /// The sampler
    #[arg(long, default_value_t = defaults::sampler(), value_parser = sampler_names())]
    sampler: String,
    /// Width and height in pixels [default: what the U-Net was trained for]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// What to compute in
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
    /// Decode by overlapping tiles of this many latent pixels a side: saves memory, changes pictures a little
    #[arg(long, value_name = "SIDE")]
    vae_tile: Option<TileSide>,
    /// Where to put the pictures
    #[arg(long, value_name = "FOLDER", default_value = "pictures")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

/// Pixels, as `WIDTHxHEIGHT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    width: usize,
    height: usize,
}

#[derive(Serialize)]
struct Drawn<'a> {
    prompt: &'a str,
    negative_prompt: &'a str,
    seed: u64,
    pictures: Vec<PathBuf>,
}

impl Generate {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let settings = self.compute.load(Layer::default())?;
        let device = settings.device.open().map_err(StageError::from)?;
        let directory = ModelDirectory::open(&self.model)?;
        let latent = self.latent(&directory)?;
        let pictures = self.draw(&directory, latent, &device)?;
        if self.json {
            let Self { prompt, negative_prompt, seed, .. } = &self;
            return print_json(&Drawn { prompt, negative_prompt, seed: *seed, pictures });
        }
        print(&pictures.iter().map(|path| format!("{}\n", path.display())).collect::<String>())
    }

    /// Channels, height and width of the latents.
    fn latent(&self, directory: &ModelDirectory) -> Result<[usize; 3], CliError> {
        let unet = directory.unet_config()?;
        let (height, width) = match self.size {
            None => unet.sample_size,
            Some(size) => {
                let factor = directory.vae_config()?.downscale();
                let whole = |side: usize| side > 0 && side.is_multiple_of(factor);
                if !whole(size.width) || !whole(size.height) {
                    let needed = format!("both sides must be multiples of {factor}");
                    return Err(CliError::Size { found: size, needed });
                }
                (size.height / factor, size.width / factor)
            }
        };
        Ok([unet.in_channels, height, width])
    }

    fn draw(
        &self,
        directory: &ModelDirectory,
        latent: [usize; 3],
        device: &Device,
    ) -> Result<Vec<PathBuf>, StageError> {
        let (interrupt, progress) = (signals::listen(), Alone::default());
        let schedule = NoiseSchedule::from_config(&directory.scheduler_config()?)?;
        let sampler = sample::find(&self.sampler)?;
        let legs = sample::Path::new(sampler, &schedule, self.steps)?.legs.len();
        let dtype = self.dtype.into();
        let vae = directory.vae(dtype, device)?.tiled(self.vae_tile);
        let factor = vae.downscale();
        let encoder =
            Encoder::open(directory, dtype, device)?.sized((latent[1] * factor, latent[2] * factor));
        encoder.note_truncated([self.prompt.as_str(), self.negative_prompt.as_str()], &progress)?;
        let count = usize::from(self.count);
        let conditioning = encoder.encode(&vec![&self.prompt; count])?;
        let unconditional = encoder.unconditional(&self.negative_prompt, count)?;
        // Its memory is wanted for the U-Net.
        drop(encoder);
        let unet = directory.unet(dtype, device)?;
        let generator = Generator {
            unet: &unet,
            schedule: &schedule,
            sampler,
            steps: self.steps,
            guidance_scale: self.guidance,
        };
        let random = Random::new(self.seed, "generate");
        let gallery = Gallery {
            vae: &vae,
            conditioning: &conditioning,
            unconditional: Some(&unconditional),
            latent,
            batch: 1,
            random: &random,
        };
        std::fs::create_dir_all(&self.output).map_err(StageError::file(&self.output))?;
        progress.length((count * legs) as u64, "steps");
        let mut paths = Vec::with_capacity(count);
        for index in 0..count {
            let observe = &mut |visit: sample::Visit<'_>| -> Result<(), MetricError> {
                progress.position((index * legs + visit.leg) as u64);
                Ok(interrupt.check()?)
            };
            for picture in gallery.draw_batch(&generator, &[index], observe)? {
                let path = picture_path(&self.output, index);
                pictures::write(&path, &picture)?;
                paths.push(path);
            }
        }
        Ok(paths)
    }
}

fn sampler_names() -> PossibleValuesParser {
    PossibleValuesParser::new(SAMPLERS.iter().map(|sampler| sampler.name()))
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sides = text.split_once('x').and_then(|(width, height)| {
            Some(Self { width: width.parse().ok()?, height: height.parse().ok()? })
        });
        sides.ok_or_else(|| "give width and height in pixels, such as 512x768".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}
