//! `encode`: training data for `distill`, drawn by the teacher or made from pictures.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::needs::{self, KnownModel, KnownRows, Needs, Outlook};
use super::sources::{SampleSource, SourceKind, prompts_file};
use super::{BadValue, Context, Drawing, FileInput, Input, Stage, StageError, StageInfo};
use crate::base::{ArtefactKind, Manifest, Percent, StageId, Whole, copies};
use crate::data::picture::Buckets;
use crate::data::{
    Background, Captions, Encoder, Encoding, LatentDrawing, Latents, Preparation, Rules, SampleFiles,
    SampleList, prompts,
};
use crate::model::UNetConfig;
use crate::sample::{self, NoiseSchedule};

/// `with:` of `use: encode`. Give one source: `prompts`, `pictures`, `webdataset`, `parquet` or `cached-latents`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Encode {
    /// The stage with the teacher.
    model: StageId,
    /// A text file with one prompt per line: the teacher draws the latents.
    prompts: Option<PathBuf>,
    /// A folder of PNG, JPEG or WebP pictures, with sub-folders. A caption is in a `.txt` or `.caption` file of the picture's
    /// name, in `metadata.jsonl` or `metadata.csv` with `file_name`, or in a metadata file of kohya's scripts
    /// (`meta_lat.json`). Pictures below a folder `10_name` count ten times.
    pictures: Option<PathBuf>,
    /// Tar archives in webdataset's layout, such as img2dataset's: a folder, one file, or a pattern such as
    /// `data/{00000..00009}.tar`. Compressed archives (`.tar.gz`) are unpacked into the cache while the stage runs.
    webdataset: Option<PathBuf>,
    /// Parquet files with pictures inside, in a column `image` with `bytes` or a column `jpg`: a folder, one file, or a
    /// pattern such as `data/train-*.parquet`. A row with a `path` and no `bytes` is a file below the table's folder.
    parquet: Option<PathBuf>,
    /// A folder of latents in kohya's `.npz` files, with captions as for `pictures`.
    cached_latents: Option<PathBuf>,
    /// The column or key of the captions in tables, metadata files and JSON members. Default: the first of `text`, `caption`,
    /// `prompt` and `txt`.
    caption_column: Option<String>,
    /// `required`: samples without a caption are skipped. `optional`: they are trained with the empty prompt. Default
    /// `required`.
    #[serde(default)]
    captions: Captions,
    /// The largest share of samples that may be skipped because they are damaged, not supported, or have no caption.
    /// Default `1 %`.
    #[serde(default = "default_max_skipped")]
    max_skipped: Percent,
    /// What transparent pixels show: `white`, `grey` or `black`. Default `white`.
    #[serde(default)]
    background: Background,
    /// Crops each picture to the size nearest to its own aspect ratio, all of about the area of `drawing.size`, instead of
    /// one size for all: as SDXL was trained. Default `false`.
    #[serde(default)]
    aspect_buckets: bool,
    /// The number of samples. `prompts` are used in turn; default: one sample per prompt. Of more pictures than that, as
    /// many are drawn at random; default: all.
    samples: Option<Whole<1, 10_000_000>>,
    /// How latents are drawn; for pictures, the size to crop them to and how many are encoded together.
    #[serde(default)]
    drawing: Drawing,
}

pub(super) fn default_max_skipped() -> Percent {
    Rules::default().max_skipped
}

/// Adds what decides how a picture's file becomes pixels.
pub(super) fn describe_reading(manifest: &mut Manifest, captions: Captions, background: Background) {
    manifest.field("captions", captions).field("background", background);
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "encode",
    // 2: pictures are cropped before they are scaled, by another library, with their true sizes; `samples.jsonl`.
    // 3: JPEGs are decoded by libjpeg-turbo's arithmetic.
    version: 3,
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
        if let Some(source) = self.sources().first() {
            describe_reading(manifest, self.captions, self.background);
            manifest
                .field("source", source.name)
                .field("caption-column", self.caption_column.as_deref().unwrap_or(""))
                .field("aspect-buckets", self.aspect_buckets);
        }
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input { name: "model".to_owned(), stage: &self.model, kinds: &[ArtefactKind::Model] }]
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        // One sample per prompt, or the prompts in turn.
        let used = |count: usize| self.samples.map_or(count, |samples| samples.get().min(count));
        let prompts = self.prompts.iter().map(|path| prompts_file("prompts", path, used));
        prompts.chain(self.sources().into_iter().map(SampleSource::input)).collect()
    }

    fn check(&self) -> Result<(), BadValue> {
        let files = self.files();
        match files.as_slice() {
            [_] => {}
            [] => {
                let message = "no source of samples: give `prompts`, `pictures`, `webdataset`, `parquet` or \
                               `cached-latents`";
                return Err(BadValue::new("model", message));
            }
            [first, second, ..] => {
                let message = format!("`{}` and `{}` exclude each other; give one", first.name, second.name);
                return Err(BadValue::new(second.name.to_string(), message));
            }
        }
        self.drawing.check(|field| format!("drawing.{field}"))
    }

    fn check_unet(&self, unet: &UNetConfig) -> Result<(), StageError> {
        Ok(sample::check_inputs(unet)?)
    }

    fn makes(&self, model: &KnownModel) -> Option<KnownRows> {
        let rows = self.samples.map(|samples| samples.get() as u64);
        Some(KnownRows { rows, latents: self.drawing.latents_of(model) })
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        let model = outlook.models.get("model")?;
        let samples = self.samples.map(Whole::get);
        let (height, width) = self.drawing.latents_of(model);
        let row = |rows| needs::latents(rows, [model.unet.out_channels, height, width], &model.unet);
        let drawing = self.drawing.needs(model, samples.unwrap_or(usize::MAX), outlook);
        let weights = if self.prompts.is_some() { drawing.weights } else { 0 };
        Some(Needs { weights, disk: samples.map_or(0, row), ..drawing })
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let model = Model::open(context.input("model"))?;
        sample::check_inputs(&model.directory.unet_config()?)?;
        let rules = Rules { captions: self.captions, max_skipped: self.max_skipped };
        let source = self.sources().first().copied();
        let (checkpoint, progress) = (context.checkpoint, context.progress);
        let list = match source {
            Some(source) => source.list(context.file(source.name), checkpoint, &context.random, progress)?,
            None => {
                let asked = self.samples.map(Whole::get);
                SampleList::from_prompts(&prompts::read(context.file("prompts"))?, asked)
            }
        };
        let count = list.samples.len();
        let latent = self.drawing.latent(&model.directory, count, model.dtype, context.device)?;
        let encoding = Encoding {
            list: &list,
            folder: checkpoint,
            device: context.device,
            progress,
            interrupt: context.interrupt,
        };
        let encoder = self.drawing.encoder(&model.directory, model.dtype, context.device)?;
        match source {
            None => self.draw(context, &model, latent, &encoding, encoder)?,
            Some(_) => self.encode(context, &model, latent, &encoding, encoder, rules)?,
        }
        encoding.finish()?;
        // Checks that the files are consistent before they become an artefact.
        Latents::open(checkpoint)?;
        copies::transfer_tree(checkpoint, context.output, copies::link)
            .map_err(StageError::file(context.output))
    }
}

impl Encode {
    /// The sources in files that are given: one, or none with `prompts`.
    fn sources(&self) -> Vec<SampleSource<'_>> {
        let kinds = [
            ("pictures", &self.pictures, SourceKind::Pictures),
            ("webdataset", &self.webdataset, SourceKind::Webdataset),
            ("parquet", &self.parquet, SourceKind::Parquet),
            ("cached-latents", &self.cached_latents, SourceKind::CachedLatents),
        ];
        let mut sources = Vec::new();
        for (name, path, kind) in kinds {
            if let Some(path) = path {
                sources.push(SampleSource {
                    name,
                    path,
                    kind,
                    column: self.caption_column.as_deref(),
                    rules: Rules { captions: self.captions, max_skipped: self.max_skipped },
                    count: self.samples.map(Whole::get),
                });
            }
        }
        sources
    }

    /// Lets the teacher draw.
    fn draw(
        &self,
        context: &Context<'_>,
        model: &Model,
        latent: [usize; 3],
        encoding: &Encoding<'_>,
        encoder: Encoder,
    ) -> Result<(), StageError> {
        let time_ids = encoding.texts(&encoder)?;
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
            batch: self.drawing.batch.get(),
            unconditional: &unconditional,
            random: &context.random,
        };
        Ok(encoding.draw(&drawing, time_ids.as_ref())?)
    }

    /// Encodes what lies in files.
    fn encode(
        &self,
        context: &Context<'_>,
        model: &Model,
        [_, height, width]: [usize; 3],
        encoding: &Encoding<'_>,
        encoder: Encoder,
        rules: Rules,
    ) -> Result<(), StageError> {
        let time_ids = encoding.texts(&encoder)?;
        drop(encoder);
        let vae = self.drawing.vae(&model.directory, model.dtype, context.device)?;
        let factor = vae.downscale();
        let size = (height * factor, width * factor);
        let buckets = match self.aspect_buckets {
            // The U-Net halves its feature maps between its levels.
            true => Buckets::around(size, factor << (model.directory.unet_config()?.levels.len() - 1)),
            false => Buckets::one(size),
        };
        let background = self.background.colour();
        let files = SampleFiles {
            list: encoding.list,
            vae: &vae,
            preparation: &Preparation::new(buckets, background, factor),
            batch: self.drawing.batch.get(),
            device: context.device,
            interrupt: context.interrupt,
        };
        Ok(encoding.files(&files, time_ids.as_ref(), rules)?)
    }
}
