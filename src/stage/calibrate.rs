//! `calibrate`: the points on which units are scored and models compared.

use std::path::{Path, PathBuf};

use candle_core::Device;
use schemars::JsonSchema;
use serde::Deserialize;

use super::encode::{default_max_skipped, describe_reading};
use super::model::Model;
use super::needs::{self, KnownModel, KnownRows, Needs, Outlook};
use super::sources::{SampleSource, SourceKind, prompts_file};
use super::{BadValue, Context, Drawing, FileInput, Input, Stage, StageError, StageInfo, memory};
use crate::base::{ArtefactKind, Manifest, Percent, StageId, Whole};
use crate::data::picture::Buckets;
use crate::data::{
    Background, Calibration, Captioned, Captions, Encoder, Points, Preparation, Rules, SampleFiles,
    Trajectories, prompts,
};
use crate::model::unet::UNetConfig;
use crate::sample::{self, NoiseSchedule};

/// `with:` of `use: calibrate`. Points come from `prompts`, from `pictures` or from a `file`: give one of the three.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Calibrate {
    /// The stage with the teacher. Not needed with `file`.
    model: Option<StageId>,
    /// A text file with one prompt per line: points are taken along the teacher's own sampling trajectories.
    prompts: Option<PathBuf>,
    /// A folder of PNG, JPEG or WebP pictures with captions, as for `encode`: points are their latents with added noise.
    pictures: Option<PathBuf>,
    /// `required`: pictures without a caption are skipped. `optional`: they are used with the empty prompt. Default
    /// `required`.
    #[serde(default)]
    captions: Captions,
    /// The largest share of pictures that may be skipped because they are damaged, not supported, or have no caption.
    /// Default `1 %`.
    #[serde(default = "default_max_skipped")]
    max_skipped: Percent,
    /// What transparent pixels show: `white`, `grey` or `black`. Default `white`.
    #[serde(default)]
    background: Background,
    /// An existing `calibration.safetensors`.
    file: Option<PathBuf>,
    /// The number of points. Default 256.
    #[serde(default = "default_samples")]
    samples: Whole<1, 1_000_000>,
    /// Points per trajectory: more are cheaper but more similar. Default 1.
    #[serde(default = "one")]
    points_per_trajectory: Whole<1, 10_000>,
    /// How trajectories are drawn; for `pictures`, the size to crop them to and how many are encoded together.
    #[serde(
        default = "Drawing::along_trajectories",
        deserialize_with = "Drawing::deserialize_along_trajectories"
    )]
    drawing: Drawing,
}

fn default_samples() -> Whole<1, 1_000_000> {
    Whole::new(256)
}

fn one() -> Whole<1, 10_000> {
    Whole::new(1)
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "calibrate",
    // 2: pictures are cropped before they are scaled, by another library, and drawn by the seed if there are too many.
    // 3: JPEGs are decoded by libjpeg-turbo's arithmetic.
    version: 3,
    summary: "takes calibration points from the teacher's trajectories, from pictures, or from a file",
    output: ArtefactKind::Calibration,
    seeded: true,
    computes: true,
    schema: |generator| Calibrate::json_schema(generator),
};

impl Stage for Calibrate {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        // The points of a file are taken as they are.
        if self.file.is_some() {
            return;
        }
        manifest.field("samples", self.samples);
        if self.prompts.is_some() {
            manifest.field("points-per-trajectory", self.points_per_trajectory);
            self.drawing.describe_latents(manifest, "drawing");
        } else {
            self.drawing.describe_cropping(manifest, "drawing");
        }
        if self.pictures.is_some() {
            describe_reading(manifest, self.captions, self.background);
        }
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        let input = |stage| Input { name: "model".to_owned(), stage, kinds: &[ArtefactKind::Model] };
        self.model.iter().map(input).collect()
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        // At least one evaluation of the U-Net per step, so at most this many trajectories, with the prompts in turn.
        let per_trajectory = self.points_per_trajectory.get().min(self.drawing.steps.get());
        let used = move |count: usize| self.samples.get().div_ceil(per_trajectory).min(count);
        let prompts = self.prompts.iter().map(|path| prompts_file("prompts", path, used));
        let pictures = self.pictures.iter().map(|path| self.source(path).input());
        let file = self.file.iter().map(|path| FileInput::path("file", path));
        prompts.chain(pictures).chain(file).collect()
    }

    fn check(&self) -> Result<(), BadValue> {
        let bad = |name: &str, message: String| Err(BadValue::new(name, message));
        let files = self.files();
        let given: Vec<&str> = files.iter().map(|file| &*file.name).collect();
        match (given.as_slice(), &self.model) {
            ([], _) => {
                return bad("samples", "no source of points: give `prompts`, `pictures` or `file`".into());
            }
            (["prompts" | "pictures"], None) => {
                return bad(given[0], format!("`{}` needs `model`, the stage with the teacher", given[0]));
            }
            ([_], _) => {}
            ([first, second, ..], _) => {
                return bad(second, format!("`{first}` and `{second}` exclude each other; give one"));
            }
        }
        self.drawing.check(|field| format!("drawing.{field}"))
    }

    fn check_unet(&self, unet: &UNetConfig) -> Result<(), StageError> {
        if self.file.is_some() { Ok(()) } else { Ok(sample::check_inputs(unet)?) }
    }

    fn makes(&self, model: &KnownModel) -> Option<KnownRows> {
        let rows = Some(self.samples.get() as u64).filter(|_| self.file.is_none());
        Some(KnownRows { rows, latents: self.drawing.latents_of(model) })
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        let model = outlook.models.get("model").filter(|_| self.file.is_none())?;
        let samples = self.samples.get();
        let (height, width) = self.drawing.latents_of(model);
        let data = needs::points(samples, [model.unet.in_channels, height, width], &model.unet);
        let drawing = self.drawing.needs(model, samples, outlook);
        // Pictures pass through the autoencoder alone.
        let weights = if self.prompts.is_some() { drawing.weights } else { 0 };
        Some(Needs { weights, data, disk: data, ..drawing })
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let points = if self.file.is_some() {
            let path = context.file("file");
            let calibration = Calibration::load(path, &Device::Cpu)?;
            if self.model.is_some() {
                calibration
                    .check_fit(&Model::open(context.input("model"))?.directory.unet_config()?, path)?;
            }
            Points { calibration, prompts: Vec::new() }
        } else {
            let model = Model::open(context.input("model"))?;
            sample::check_inputs(&model.directory.unet_config()?)?;
            let schedule = NoiseSchedule::from_config(&model.directory.scheduler_config()?)?;
            let encoder = self.drawing.encoder(&model.directory, model.dtype, context.device)?;
            if self.prompts.is_some() {
                self.along_trajectories(context, &model, &schedule, &encoder)?
            } else {
                self.noised_pictures(context, &model, &schedule, &encoder)?
            }
        };
        Ok(points.save(context.output)?)
    }
}

impl Calibrate {
    /// The pictures in a folder. No more are used than there are points.
    fn source<'a>(&self, path: &'a Path) -> SampleSource<'a> {
        SampleSource {
            name: "pictures",
            path,
            kind: SourceKind::Pictures,
            column: None,
            rules: Rules { captions: self.captions, max_skipped: self.max_skipped },
            count: Some(self.samples.get()),
        }
    }

    /// All points are in memory at the end: noisy latents, their noise and the text states, in f32.
    fn require_memory(
        &self,
        latent: [usize; 3],
        unet: &UNetConfig,
        device: &Device,
    ) -> Result<(), StageError> {
        let samples = self.samples.get();
        let needed = needs::points(samples, latent, unet);
        Ok(memory::require(needed, device, || format!("{samples} points"), "`samples`")?)
    }

    fn along_trajectories(
        &self,
        context: &Context<'_>,
        model: &Model,
        schedule: &NoiseSchedule,
        encoder: &Encoder,
    ) -> Result<Points, StageError> {
        let unet = model.unet(context.device)?;
        let prompts = prompts::read(context.file("prompts"))?;
        let latent =
            self.drawing.latent(&model.directory, self.samples.get(), model.dtype, context.device)?;
        self.require_memory(latent, unet.config(), context.device)?;
        let trajectories = Trajectories {
            generator: self.drawing.generator(&unet, schedule),
            latent,
            encoder,
            prompts: &prompts,
            negative_prompt: &self.drawing.negative_prompt,
            samples: self.samples.get(),
            per_trajectory: self.points_per_trajectory.get(),
            batch: self.drawing.batch.get(),
            random: &context.random,
        };
        Ok(trajectories.points(context.checkpoint, context.progress, context.interrupt)?)
    }

    fn noised_pictures(
        &self,
        context: &Context<'_>,
        model: &Model,
        schedule: &NoiseSchedule,
        encoder: &Encoder,
    ) -> Result<Points, StageError> {
        let vae = self.drawing.vae(&model.directory, model.dtype, context.device)?;
        let latent =
            self.drawing.latent(&model.directory, self.samples.get(), model.dtype, context.device)?;
        self.require_memory(latent, &model.directory.unet_config()?, context.device)?;
        let [_, height, width] = latent;
        let size = (height * vae.downscale(), width * vae.downscale());
        let (progress, interrupt) = (context.progress, context.interrupt);
        let (folder, source) = (context.file("pictures"), self.source(context.file("pictures")));
        let list = source.list(folder, context.checkpoint, &context.random, progress)?;
        let background = self.background.colour();
        let files = SampleFiles {
            list: &list,
            vae: &vae,
            preparation: &Preparation::new(Buckets::one(size), background, vae.downscale()),
            batch: self.drawing.batch.get(),
            device: context.device,
            interrupt,
        };
        let captioned = Captioned::from_pictures(&files, source.rules, encoder, progress)?;
        Ok(captioned.points(schedule, self.samples.get(), &context.random)?)
    }
}
