//! `laptop-diff generate`: pictures of a prompt, with any model directory that the pipelines read or make.

use std::path::PathBuf;

use candle_core::Device;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::error::CliError;
use super::options::ComputeArguments;
use super::output::{print, print_json};
use super::subject::Subject;
use super::target;
use crate::backend::{Dtype, Random};
use crate::base::bounded::Guidance;
use crate::base::{Progress, Real, Whole, path_text};
use crate::config::settings::Layer;
use crate::data::pictures;
use crate::metric::{Gallery, MetricError, picture_path};
use crate::model::ModelDirectory;
use crate::model::vae::TileSide;
use crate::run::signals;
use crate::sample::{self, NoiseSchedule, SAMPLERS};
use crate::stage::{DEFAULT_SAMPLER, Drawing, PictureSize, StageError};
use crate::survey;
use crate::ui::Alone;

/// Draw pictures of a prompt with a teacher or a pruned model
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff generate examples/nano-sd --prompt 'a red circle on a blue ground'
  laptop-diff generate runs/nano50/student --prompt 'a star' --count 4 --seed 7
  laptop-diff generate runs/nano50/retrained@latest --prompt 'a star'   # while it trains
  laptop-diff generate sdxl --prompt 'a harbour at dawn' --size 1344x768 --dtype bf16 --vae-tile 64

The pictures are called 000.png, 001.png, ... in the output folder; existing files of these names are replaced.
The same command draws the same pictures again.")]
pub(super) struct Generate {
    /// A diffusers model directory; or STAGE@latest in a run folder, a training's newest checkpoint (STAGE@400: of step 400)
    model: PathBuf,
    /// What to draw
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Negative prompt
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    negative_prompt: String,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of pictures
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Steps of the sampler
    #[arg(long, default_value_t = Drawing::default().steps)]
    steps: Whole<1, 10_000>,
    /// Guidance scale; values up to 1 disable guidance, at half the cost
    #[arg(long, default_value_t = Drawing::default().guidance_scale)]
    guidance: Real<Guidance>,
    /// The sampler
    #[arg(long, default_value = DEFAULT_SAMPLER, value_parser = sampler_names())]
    sampler: String,
    /// Width and height in pixels [default: what the U-Net was trained for]
    #[arg(long, value_name = "WxH")]
    size: Option<PictureSize>,
    /// Type to compute in
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
    /// Decode by overlapping tiles with this many latent pixels a side: saves memory, changes pictures slightly
    #[arg(long, value_name = "SIDE")]
    vae_tile: Option<TileSide>,
    /// Folder for the pictures
    #[arg(long, value_name = "FOLDER", default_value = "pictures")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

#[derive(Serialize)]
struct Drawn<'a> {
    prompt: &'a str,
    negative_prompt: &'a str,
    seed: u64,
    pictures: Vec<String>,
}

impl Generate {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let drawing = self.drawing();
        drawing.check(flag).map_err(CliError::Flag)?;
        target::folder(&self.output)?;
        (0..usize::from(self.count))
            .try_for_each(|index| target::file(&picture_path(&self.output, index)))?;
        let settings = self.compute.load(Layer::default())?;
        let device = settings.device.open().map_err(StageError::from)?;
        let subject = Subject::open(&self.model)?;
        let directory = survey::open(subject.path())?;
        let pictures = self.draw(&drawing, &directory, &device)?;
        if self.json {
            let Self { prompt, negative_prompt, seed, .. } = &self;
            let pictures = pictures.iter().map(|path| path_text::of(path)).collect();
            return print_json(&Drawn { prompt, negative_prompt, seed: *seed, pictures });
        }
        print(&pictures.iter().map(|path| format!("{}\n", path.display())).collect::<String>())
    }

    fn drawing(&self) -> Drawing {
        Drawing {
            sampler: Some(self.sampler.clone()),
            steps: self.steps,
            guidance_scale: self.guidance,
            negative_prompt: self.negative_prompt.clone(),
            size: self.size,
            vae_tile: self.vae_tile,
            batch: Whole::new(1),
        }
    }

    fn draw(
        &self,
        drawing: &Drawing,
        directory: &ModelDirectory,
        device: &Device,
    ) -> Result<Vec<PathBuf>, StageError> {
        let (interrupt, progress) = (signals::listen(), Alone::default());
        let latent = drawing.latent(directory, 1, self.dtype.into(), device)?;
        let schedule = NoiseSchedule::from_config(&directory.scheduler_config()?)?;
        let legs = sample::Path::new(drawing.sampler(), &schedule, drawing.steps.get())?.legs.len();
        let dtype = self.dtype.into();
        let vae = drawing.vae(directory, dtype, device)?;
        let encoder = drawing.encoder(directory, dtype, device)?;
        let count = usize::from(self.count);
        let prompts = vec![self.prompt.clone(); count];
        let (conditioning, unconditional) = drawing.texts(&encoder, &prompts, &progress, &interrupt)?;
        // Its memory is wanted for the U-Net.
        drop(encoder);
        let unet = directory.unet(dtype, device)?;
        let generator = drawing.generator(&unet, &schedule);
        let random = Random::new(self.seed, "generate");
        let gallery = Gallery {
            prompts: &prompts,
            vae: &vae,
            conditioning: &conditioning,
            unconditional: Some(&unconditional),
            latent,
            batch: drawing.batch.get(),
            random: &random,
            seed: 0,
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

/// The flag of a field of [`Drawing`].
fn flag(field: &str) -> String {
    match field {
        "guidance-scale" => "--guidance".to_owned(),
        other => format!("--{other}"),
    }
}

fn sampler_names() -> PossibleValuesParser {
    PossibleValuesParser::new(SAMPLERS.iter().map(|sampler| sampler.name()))
}
