//! `profile`: measures how long each unit takes on this device, for selections under a latency budget.

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::needs::{Needs, Outlook};
use super::{Context, Input, Stage, StageError, StageInfo, memory};
use crate::base::{ArtefactKind, Manifest, StageId, Whole};
use crate::model::unet::UNet;
use crate::profile::Latency;

/// `with:` of `use: profile`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Profile {
    /// The stage with the model.
    model: StageId,
    /// Samples per forward pass. Default 1; 2 corresponds to one picture with guidance.
    #[serde(default = "default_batch")]
    batch: Whole<1, 65_536>,
    /// Timed forward passes, after two untimed ones. Default 20; the result is the median of each step.
    #[serde(default = "default_repetitions")]
    repetitions: Whole<1, 10_000>,
}

fn default_batch() -> Whole<1, 65_536> {
    Whole::new(1)
}

fn default_repetitions() -> Whole<1, 10_000> {
    Whole::new(20)
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "profile",
    version: 1,
    summary: "times each unit on this device; measurements vary, so the first one is kept in the cache",
    output: ArtefactKind::Profile,
    seeded: false,
    computes: true,
    schema: |generator| Profile::json_schema(generator),
};

impl Stage for Profile {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest.field("batch", self.batch).field("repetitions", self.repetitions);
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input { name: "model".to_owned(), stage: &self.model, kinds: &[ArtefactKind::Model] }]
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        let model = outlook.models.get("model")?;
        let dtype = outlook.activations(model.dtype);
        let activations = memory::pass(&model.unet, self.batch.get(), model.unet.sample_size, dtype);
        Some(Needs::running(UNet::bytes(&model.unet, model.dtype), activations))
    }

    fn measures_machine(&self) -> bool {
        true
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let model = Model::open(context.input("model"))?;
        let (batch, repetitions) = (self.batch.get(), self.repetitions.get());
        let config = model.directory.unet_config()?;
        let needed = memory::pass(&config, batch, config.sample_size, model.dtype);
        memory::require(needed, context.device, || format!("{batch} samples"), "`batch`")?;
        let unet = model.unet(context.device)?;
        let latency =
            Latency::measure(&unet, batch, repetitions, context.device, context.progress, context.interrupt)?;
        latency.save(context.output).map_err(StageError::file(context.output))
    }
}
