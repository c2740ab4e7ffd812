//! `distill`: retrains a pruned model against its teacher.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::points::points;
use super::{BadValue, Context, Input, Stage, StageError, StageInfo};
use crate::base::{ArtefactKind, Manifest, StageId, files};
use crate::data::{Calibration, Encoder};
use crate::distill::history::HISTORY_FILE;
use crate::distill::{Cadence, DistillError, DistillParameters, Distillation, LatentBatch, LatentSource};
use crate::model::files::weights;
use crate::model::network::Conditioning;
use crate::model::{ModelDirectory, Part};
use crate::sample::NoiseSchedule;

/// `with:` of `use: distill`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Distill {
    /// The stage with the unpruned model.
    teacher: StageId,
    /// The stage with the pruned model, where training starts.
    student: StageId,
    /// The stage with the training data: a calibration, of which the clean latents and their text are taken.
    data: StageId,
    /// The numbers of the training.
    #[serde(default)]
    training: DistillParameters,
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "distill",
    version: 1,
    summary: "retrains a pruned model against its teacher, by normalised feature distillation",
    output: ArtefactKind::Model,
    seeded: true,
    computes: true,
    schema: |generator| Distill::json_schema(generator),
};

impl Stage for Distill {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        self.training.describe(manifest);
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![
            Input { name: "teacher".to_owned(), stage: &self.teacher, kinds: &[ArtefactKind::Model] },
            Input { name: "student".to_owned(), stage: &self.student, kinds: &[ArtefactKind::Model] },
            Input { name: "data".to_owned(), stage: &self.data, kinds: &[ArtefactKind::Calibration] },
        ]
    }

    fn check(&self) -> Result<(), BadValue> {
        self.training.check().map_err(|(_, message)| BadValue::new("training", message))
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let teacher = Model::open(context.input("teacher"))?;
        let student = Model::open(context.input("student"))?;
        let schedule = NoiseSchedule::from_config(&teacher.directory.scheduler_config()?)?;
        let source = CleanLatents::new(&points(context, "data")?, &teacher, &schedule, context.device)?;
        let (pupil, variables) = student.directory.unet_trainable(teacher.dtype, context.device)?;
        let teacher = teacher.unet(context.device)?;
        let distilled = Distillation {
            teacher: &teacher,
            student: &pupil,
            variables: &variables,
            schedule: &schedule,
            source: &source,
            parameters: &self.training,
            device: context.device,
            random: &context.random,
            checkpoint: context.checkpoint,
            cadence: Cadence::default(),
            progress: context.progress,
            interrupt: context.interrupt,
        }
        .run()?;
        files::link_tree(student.directory.path(), context.output)
            .map_err(StageError::file(student.directory.path()))?;
        save_weights(&student.directory, &distilled.weights, context.output)?;
        let history = context.output.join(HISTORY_FILE);
        fs::copy(&distilled.history, &history).map(drop).map_err(StageError::file(&history))
    }
}

/// Puts the retrained weights where `output` has the student's, each in the type that the student's file has it in.
fn save_weights(
    student: &ModelDirectory,
    weights: &BTreeMap<String, Tensor>,
    output: &Path,
) -> Result<(), StageError> {
    let source = student.unet_weights()?;
    let folder = ModelDirectory::open(output)?.folder(Part::UNet)?;
    weights::remove_from(&folder).map_err(StageError::file(&folder))?;
    let tensors: HashMap<&str, Tensor> = weights
        .iter()
        .map(|(name, tensor)| {
            let dtype = source.dtype(name).unwrap_or(tensor.dtype());
            Ok((name.as_str(), tensor.to_device(&Device::Cpu)?.to_dtype(dtype)?))
        })
        .collect::<candle_core::Result<_>>()?;
    let path = folder.join("diffusion_pytorch_model.safetensors");
    weights::write(&path, tensors).map_err(StageError::file(&path))
}

/// The clean latents of calibration points: from x_t and its noise follows x0.
struct CleanLatents {
    latents: Tensor,
    conditioning: Conditioning,
    unconditional: Conditioning,
}

impl CleanLatents {
    fn new(
        points: &Calibration,
        teacher: &Model,
        schedule: &NoiseSchedule,
        device: &Device,
    ) -> Result<Self, StageError> {
        Ok(Self {
            latents: schedule.latents_in(&points.sample, &points.noise, &points.timestep)?,
            conditioning: points.conditioning(),
            unconditional: Encoder::open(&teacher.directory, teacher.dtype, device)?.unconditional("", 1)?,
        })
    }
}

impl LatentSource for CleanLatents {
    fn rows(&self) -> usize {
        self.latents.dims()[0]
    }

    fn fetch(&self, rows: &[usize], device: &Device) -> Result<LatentBatch, DistillError> {
        let rows = Tensor::new(rows.iter().map(|&row| row as u32).collect::<Vec<_>>(), device)?;
        let pick = |tensor: &Tensor| tensor.index_select(&rows, 0);
        Ok(LatentBatch {
            latents: pick(&self.latents)?,
            conditioning: Conditioning {
                encoder_hidden_states: pick(&self.conditioning.encoder_hidden_states)?,
                text_embeds: self.conditioning.text_embeds.as_ref().map(pick).transpose()?,
                time_ids: self.conditioning.time_ids.as_ref().map(pick).transpose()?,
            },
        })
    }

    fn unconditional(&self, _device: &Device) -> Result<Option<Conditioning>, DistillError> {
        Ok(Some(self.unconditional.clone()))
    }
}
