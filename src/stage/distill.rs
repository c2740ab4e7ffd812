//! `distill`: retrains a pruned model against its teacher.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::Deserialize;

use super::distill_task::DistillTask;
use super::interface::Earlier;
use super::model::Model;
use super::needs::{Needs, Outlook};
use super::points::points;
use super::{
    BadValue, Bench, Context, Input, Stage, StageError, StageInfo, Task, distill_state, distill_watch,
};
use crate::backend::{DeviceClass, memory};
use crate::base::{ArtefactKind, Manifest, StageId, copies};
use crate::data::{Encoder, Latents};
use crate::distill::history::HISTORY_FILE;
use crate::distill::memory::{Sizes, check_activations};
use crate::distill::{DistillError, DistillParameters, Distilled, TrainingMemory};
use crate::model::files::weights;
use crate::model::{ModelDirectory, Part, UNetConfig};
use crate::nn::activation_dtype;
use crate::sample::{self, NoiseSchedule};
use crate::train::collective::tell;
use crate::train::watch::Watcher;

/// `with:` of `use: distill`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Distill {
    /// The stage with the unpruned model.
    teacher: StageId,
    /// The stage with the pruned model, where training starts.
    student: StageId,
    /// The stage with the training data: latents (`encode`), or a calibration, whose clean latents are computed from its noisy
    /// ones.
    data: StageId,
    /// The stage with the texts (`encode-texts`) that random conditioning draws captions from. Default: the captions of `data`.
    texts: Option<StageId>,
    /// The parameters of the training.
    #[serde(default)]
    training: DistillParameters,
}

/// The folder beside the checkpoint with the latents of a calibration.
const LATENTS: &str = "latents";

/// The input with texts without pictures.
const TEXTS: &str = "texts";

pub(super) const INFO: StageInfo = StageInfo {
    name: "distill",
    // 2: a velocity is computed from the clean latents, not from the noisy ones.
    // 3: the history has the weighted terms by kind.
    // 4: gradients are summed segment by segment.
    // 5: a feature map without a starting loss of its own is weighted by its power.
    version: 5,
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
        let texts = self.texts.as_ref();
        let texts = texts.map(|stage| Input { name: TEXTS.to_owned(), stage, kinds: &[ArtefactKind::Texts] });
        let others = [
            Input { name: "teacher".to_owned(), stage: &self.teacher, kinds: &[ArtefactKind::Model] },
            Input { name: "student".to_owned(), stage: &self.student, kinds: &[ArtefactKind::Model] },
            Input {
                name: "data".to_owned(),
                stage: &self.data,
                kinds: &[ArtefactKind::Latents, ArtefactKind::Calibration],
            },
        ];
        others.into_iter().chain(texts).collect()
    }

    fn check(&self) -> Result<(), BadValue> {
        if self.texts.is_some() && self.training.random_conditioning_lambda.is_none() {
            let message = "texts are used by random conditioning alone: give `random-conditioning-lambda` in \
                           `training`, such as 5, or leave `texts` out";
            return Err(BadValue::new(TEXTS, message));
        }
        self.training.check().map_err(|(name, message)| BadValue::new(format!("training.{name}"), message))
    }

    fn check_unet(&self, unet: &UNetConfig) -> Result<(), StageError> {
        sample::check_inputs(unet)?;
        // The student has no other tensors.
        let tensors = unet.inventory();
        let names = tensors.tensors().map(|tensor| tensor.name.as_str());
        Ok(self.training.check_freeze(names)?)
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        let (teacher, student) = (outlook.models.get("teacher")?, outlook.models.get("student")?);
        let sizes = Sizes {
            student: &student.unet,
            teacher: &teacher.unet,
            latents: outlook.rows.get("data")?.latents,
            weights: teacher.dtype,
            activations: outlook.activations(teacher.dtype),
            on_host: outlook.class == DeviceClass::Cpu,
            ranks: 1,
        };
        let memory = TrainingMemory::new(&self.training, &sizes, outlook.available);
        let state =
            [memory.weights, memory.moments, memory.average, memory.average_on_host].iter().sum::<u64>();
        Some(Needs {
            weights: memory.weights + memory.teacher,
            optimiser: memory.moments + memory.average,
            activations: memory.passes,
            data: 0,
            least: memory.total(),
            // A new checkpoint is written beside the one that it replaces.
            disk: 2 * state + student.bytes,
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let teacher = Model::open(context.input("teacher"))?;
        let student = Model::open(context.input("student"))?;
        sample::check_inputs(&teacher.directory.unet_config()?)?;
        check_same_inputs(&teacher, &student)?;
        check_activations(activation_dtype(teacher.dtype, context.device))?;
        let schedule = NoiseSchedule::from_config(&teacher.directory.scheduler_config()?)?;
        let data = self.data(context, &teacher, &schedule)?;
        let memory = self.memory(&student, &teacher, &data, context)?;
        distill_state::take(&self.training, context)?;
        let easel = distill_watch::easel(&self.training, &student, context)?;
        let watchers = distill_watch::watchers(context);
        let bench = Bench {
            device: context.device,
            ranks: context.ranks,
            cadence: distill_watch::cadence(context),
            easel: easel.as_ref(),
            watcher: &watchers,
            progress: context.progress,
            interrupt: context.interrupt,
        };
        let distilled = self.train(&memory, &bench, context);
        watchers.end();
        let distilled = distilled?;
        copies::transfer_tree(student.directory.path(), context.output, copies::link)
            .map_err(StageError::file(student.directory.path()))?;
        save_weights(&student.directory, &distilled.weights, context.output)?;
        let history = context.output.join(HISTORY_FILE);
        // A student that was trained before has its own, which is linked from its artefact.
        copies::remove(&history)
            .and_then(|()| copies::copy(&distilled.history, &history))
            .map_err(StageError::file(&history))?;
        distill_watch::save(&self.training, &distilled, context)?;
        distill_state::keep(&self.training, context)
    }

    fn earlier(&self, manifest: &Manifest) -> Option<Earlier> {
        Some(distill_state::earlier(&self.training, manifest))
    }
}

impl Distill {
    /// Says what the training will hold, and fails if that cannot be.
    fn memory(
        &self,
        student: &Model,
        teacher: &Model,
        data: &Latents,
        context: &Context<'_>,
    ) -> Result<TrainingMemory, StageError> {
        self.training.pieces(context.ranks.size())?;
        let sizes = Sizes {
            student: &student.directory.unet_config()?,
            teacher: &teacher.directory.unet_config()?,
            latents: data.largest_size(),
            weights: teacher.dtype,
            activations: activation_dtype(teacher.dtype, context.device),
            on_host: context.device.is_cpu(),
            ranks: context.ranks.size(),
        };
        let memory = TrainingMemory::new(&self.training, &sizes, memory::available(context.device));
        memory.check(&self.training, &sizes, memory::free(context.device))?;
        context.progress.note(&memory.statement());
        Ok(memory)
    }

    /// Trains, with all ranks if there are several.
    fn train(
        &self,
        memory: &TrainingMemory,
        bench: &Bench<'_>,
        context: &Context<'_>,
    ) -> Result<Distilled, StageError> {
        let folder = |path: &Path| path.as_os_str().to_owned();
        let data = context.input("data");
        let task = DistillTask {
            teacher: folder(&context.input("teacher").path),
            student: folder(&context.input("student").path),
            data: match data.kind {
                ArtefactKind::Latents => folder(&data.path),
                _ => folder(&context.checkpoint.join(LATENTS)),
            },
            texts: self.texts.as_ref().map(|_| folder(&context.input(TEXTS).path)),
            checkpoint: folder(context.checkpoint),
            training: self.training.clone(),
            checkpointing: memory.checkpointing,
            holds_teacher: memory.teacher > 0,
            random: context.random.clone(),
        };
        if context.ranks.size() > 1 {
            context.progress.note(&format!("trains with {} ranks", context.ranks.size()));
            tell(context.ranks, &Task::Distill(Box::new(task.clone())))?;
        }
        Ok(task.train(bench)??)
    }

    /// The training data. A calibration becomes latents first, in the folder of the checkpoint.
    fn data(
        &self,
        context: &Context<'_>,
        teacher: &Model,
        schedule: &NoiseSchedule,
    ) -> Result<Latents, StageError> {
        let artefact = context.input("data");
        if artefact.kind == ArtefactKind::Latents {
            let latents = Latents::open(&artefact.path)?;
            latents.check_fit(&teacher.directory.unet_config()?, &artefact.path)?;
            return Ok(latents);
        }
        let folder = context.checkpoint.join(LATENTS);
        fs::create_dir_all(&folder).map_err(StageError::file(&folder))?;
        let encoder = Encoder::open(&teacher.directory, teacher.dtype, context.device)?;
        let empty = encoder.unconditional("", 1)?;
        Latents::save_points(
            &folder,
            &points(context, "data", &teacher.directory.unet_config()?)?,
            schedule,
            &empty,
        )?;
        Ok(Latents::open(&folder)?)
    }
}

/// Fails if student and teacher read different text, so that one cannot be pruned from the other.
fn check_same_inputs(teacher: &Model, student: &Model) -> Result<(), StageError> {
    let [teacher, student] = [teacher, student].map(|model| model.directory.unet_config());
    let read = |unet: &UNetConfig| {
        let pooled = unet
            .pooled_width()
            .map_or_else(String::new, |width| format!(" and pooled text of width {width}"));
        format!(
            "{} channels, text of width {}{pooled}",
            unet.in_channels,
            unet.innermost().cross_attention_dim
        )
    };
    let (teacher, student) = (read(&teacher?), read(&student?));
    match teacher == student {
        true => Ok(()),
        false => {
            let reason = format!("the teacher reads {teacher}; the student reads {student}");
            Err(DistillError::Mismatch { reason }.into())
        }
    }
}

/// Replaces the student's weights in `output` by the retrained ones, each in the type that it has in the student's
/// file.
pub(super) fn save_weights(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_number_is_named_with_its_block() -> Result<(), serde_yaml::Error> {
        let stage: Distill = serde_yaml::from_str(
            "{ teacher: t, student: s, data: d, training: { batch-size: 4, gradient-accumulation: 3 } }",
        )?;
        let bad = stage.check().expect_err("three pieces of four rows");
        assert_eq!(bad.name, "training.gradient-accumulation");
        assert!(bad.message.contains("`gradient-accumulation` is 3"), "{}", bad.message);
        Ok(())
    }

    #[test]
    fn texts_that_nothing_would_use_are_refused() -> Result<(), serde_yaml::Error> {
        let stage = |training: &str| -> Result<Distill, serde_yaml::Error> {
            serde_yaml::from_str(&format!(
                "{{ teacher: t, student: s, data: d, texts: x, training: {training} }}"
            ))
        };
        assert_eq!(stage("{}")?.check().map_err(|bad| bad.name), Err(TEXTS.to_owned()));
        assert!(stage("{ random-conditioning-lambda: 5 }")?.check().is_ok());
        Ok(())
    }
}
