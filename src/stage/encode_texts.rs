//! `encode-texts`: prompts as text states without pictures, for the random conditioning of `distill`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::needs::{self, Needs, Outlook};
use super::prompt_source::PromptSource;
use super::{BadValue, Context, FileInput, Input, Stage, StageError, StageInfo};
use crate::base::{ArtefactKind, Manifest, StageId, Whole, copies};
use crate::data::{Encoder, Encoding, SampleList, Texts};
use crate::model::UNetConfig;
use crate::sample;

/// `with:` of `use: encode-texts`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct EncodeTexts {
    /// The stage with the teacher, whose text encoders are used.
    model: StageId,
    /// The prompts: a text file with one per line, a table, or a block that names a column or a published set. Each is encoded
    /// once, however often it stands there.
    prompts: PromptSource,
    /// The number of prompts to encode, from the first of a file. Default: all.
    samples: Option<Whole<1, 100_000_000>>,
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "encode-texts",
    version: 1,
    summary: "encodes prompts without pictures, from which random conditioning draws captions",
    output: ArtefactKind::Texts,
    seeded: false,
    computes: true,
    schema: |generator| EncodeTexts::json_schema(generator),
};

impl Stage for EncodeTexts {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    /// Which prompts are used is in what is read of their file.
    fn describe(&self, manifest: &mut Manifest) {
        self.prompts.describe(manifest);
        manifest.field("samples", self.samples.map_or_else(|| "all".to_owned(), |count| count.to_string()));
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input { name: "model".to_owned(), stage: &self.model, kinds: &[ArtefactKind::Model] }]
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        vec![self.prompts.input("prompts", self.count())]
    }

    fn check(&self) -> Result<(), BadValue> {
        self.prompts.check("prompts")
    }

    fn check_unet(&self, unet: &UNetConfig) -> Result<(), StageError> {
        Ok(sample::check_inputs(unet)?)
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        let (model, samples) = (outlook.models.get("model")?, self.samples?);
        Some(Needs { disk: needs::latents(samples.get(), [0; 3], &model.unet), ..Needs::default() })
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let model = Model::open(context.input("model"))?;
        let prompts = self.prompts.read(context.file("prompts"), self.count())?;
        let encoding = Encoding {
            list: &SampleList::from_prompts(&prompts, None),
            folder: context.checkpoint,
            device: context.device,
            progress: context.progress,
            interrupt: context.interrupt,
        };
        encoding.only_texts(&Encoder::open(&model.directory, model.dtype, context.device)?)?;
        // Checks that the files are consistent before they become an artefact.
        Texts::open(context.checkpoint)?;
        copies::transfer_tree(context.checkpoint, context.output, copies::link)
            .map_err(StageError::file(context.output))
    }
}

impl EncodeTexts {
    fn count(&self) -> usize {
        self.samples.map_or(usize::MAX, Whole::get)
    }
}
