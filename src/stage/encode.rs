//! `encode`: training data for `distill`, drawn by the teacher or made from pictures.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::sources::{pictures_folder, prompts_file};
use super::{BadValue, Context, Drawing, FileInput, Input, Stage, StageError, StageInfo};
use crate::base::{ArtefactKind, Manifest, StageId, Whole, copies};
use crate::data::{Encoding, LatentDrawing, Latents, SampleList, prompts};
use crate::model::UNetConfig;
use crate::sample::{self, NoiseSchedule};

/// `with:` of `use: encode`. Give one of `prompts` and `pictures`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Encode {
    /// The stage with the teacher.
    model: StageId,
    /// A text file with one prompt per line: the teacher draws the latents.
    prompts: Option<PathBuf>,
    /// A folder of PNG or JPEG pictures, each with its caption in a text file of the same name.
    pictures: Option<PathBuf>,
    /// The number of samples. `prompts` are used in turn; default: one sample per prompt. If there are more
    /// `pictures` than samples, a random choice of them is used; default: all.
    samples: Option<Whole<1, 10_000_000>>,
    /// How latents are drawn; for `pictures`, the size to crop them to and how many are encoded together.
    #[serde(default)]
    drawing: Drawing,
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "encode",
    version: 1,
    summary: "makes training data: clean latents and text states, from prompts or from pictures",
    output: ArtefactKind::Latents,
    seeded: true,
    computes: true,
    schema: |generator| Encode::json_schema(generator),
};

impl Stage for Encode {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest.field("samples", self.samples.map_or_else(|| "all".to_owned(), |count| count.to_string()));
        match self.prompts {
            Some(_) => self.drawing.describe_latents(manifest, "drawing"),
            None => self.drawing.describe_cropping(manifest, "drawing"),
        }
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input { name: "model".to_owned(), stage: &self.model, kinds: &[ArtefactKind::Model] }]
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        // One sample per prompt, or the prompts in turn.
        let used = |count: usize| self.samples.map_or(count, |samples| samples.get().min(count));
        let prompts = self.prompts.iter().map(|path| prompts_file("prompts", path, used));
        let pictures = self.pictures.iter().map(|path| pictures_folder("pictures", path));
        prompts.chain(pictures).collect()
    }

    fn check(&self) -> Result<(), BadValue> {
        match (&self.prompts, &self.pictures) {
            (None, None) => {
                return Err(BadValue::new("model", "no source of samples: give `prompts` or `pictures`"));
            }
            (Some(_), Some(_)) => {
                let message = "`prompts` and `pictures` exclude each other; give one";
                return Err(BadValue::new("pictures", message));
            }
            _ => {}
        }
        self.drawing.check(|field| format!("drawing.{field}"))
    }

    fn check_unet(&self, unet: &UNetConfig) -> Result<(), StageError> {
        Ok(sample::check_inputs(unet)?)
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let model = Model::open(context.input("model"))?;
        sample::check_inputs(&model.directory.unet_config()?)?;
        let list = self.list(context)?;
        let count = list.samples.len();
        let latent = self.drawing.latent(&model.directory, count, model.dtype, context.device)?;
        let encoding = Encoding {
            list: &list,
            folder: context.checkpoint,
            batch: self.drawing.batch.get(),
            device: context.device,
            progress: context.progress,
            interrupt: context.interrupt,
        };
        let encoder = self.drawing.encoder(&model.directory, model.dtype, context.device)?;
        let time_ids = encoding.texts(&encoder)?;
        match self.prompts {
            Some(_) => {
                let negative = &self.drawing.negative_prompt;
                encoder.note_truncated([negative.as_str()], context.progress)?;
                let unconditional = encoder.unconditional(negative, 1)?;
                // The U-Net needs the memory.
                drop(encoder);
                let unet = model.unet(context.device)?;
                let schedule = NoiseSchedule::from_config(&model.directory.scheduler_config()?)?;
                let drawing = LatentDrawing {
                    generator: self.drawing.generator(&unet, &schedule),
                    latent,
                    unconditional: &unconditional,
                    random: &context.random,
                };
                encoding.draw(&drawing, time_ids.as_ref())?;
            }
            None => {
                drop(encoder);
                let vae = self.drawing.vae(&model.directory, model.dtype, context.device)?;
                let [_, height, width] = latent;
                let size = (height * vae.downscale(), width * vae.downscale());
                encoding.pictures(&vae, size, time_ids.as_ref())?;
            }
        }
        encoding.finish()?;
        // Checks that the files are consistent before they become an artefact.
        Latents::open(context.checkpoint)?;
        copies::transfer_tree(context.checkpoint, context.output, copies::link)
            .map_err(StageError::file(context.output))
    }
}

impl Encode {
    fn list(&self, context: &Context<'_>) -> Result<SampleList, StageError> {
        let asked = self.samples.map(Whole::get);
        if self.prompts.is_some() {
            return Ok(SampleList::from_prompts(&prompts::read(context.file("prompts"))?, asked));
        }
        let list = SampleList::from_pictures(context.file("pictures"), asked, &context.random)?;
        let (used, available) = (list.samples.len(), list.available);
        match asked {
            Some(asked) if asked > available => context.progress.note(&format!(
                "{available} pictures, fewer than the {asked} samples asked for: all are used"
            )),
            _ if used < available => {
                context.progress.note(&format!("{used} of {available} pictures, chosen by the seed"));
            }
            _ => {}
        }
        Ok(list)
    }
}
