//! `reconstruct`: solves linear layers of a pruned model anew, so that its states follow the teacher's.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use super::distill::save_weights;
use super::model::{Computation, Model};
use super::needs::{Needs, Outlook};
use super::points::points;
use super::score::needs_of_pass;
use super::{BadValue, Context, Input, Stage, StageError, StageInfo};
use crate::base::{ArtefactKind, Manifest, StageId, Whole, copies};
use crate::distill::history::HISTORY_FILE;
use crate::model::network::TailKind;
use crate::model::unet::UNet;
use crate::prune::{self, RECONSTRUCTION_FILE, Reconstructing};

/// `with:` of `use: reconstruct`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Reconstruct {
    /// The stage with the model that the student was pruned from.
    teacher: StageId,
    /// The stage with the pruned model.
    student: StageId,
    /// The stage with the calibration points. Their number decides: 512 from as many prompts are a good choice.
    calibration: StageId,
    /// Which layers are solved anew, from the first removed unit on. Default all that add no parameters: `[shortcut, projection, conv2, conv-out]`.
    #[serde(default = "free_kinds")]
    kinds: BTreeSet<LayerKind>,
    /// How many of the points are held out, in percent; they choose the strength of each layer's ridge, and whether its new weights are taken. Default 12.
    #[serde(default = "default_held_out")]
    held_out: Whole<1, 90>,
    /// Points per batch. Default 8.
    #[serde(default = "default_batch")]
    batch: Whole<1, 65_536>,
}

/// Layers that can be solved anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum LayerKind {
    /// The 1x1 convolution that remains of a removed ResNet.
    Shortcut,
    /// `proj_out` of a transformer, `to_out` of attention, the last layer of a feed-forward layer.
    Projection,
    /// The second convolution of a ResNet. Its sums take about 2.6 GB of memory for 1,280 channels.
    Conv2,
    /// The last convolution of the U-Net.
    ConvOut,
    /// A linear map in place of removed units of which no shortcut remains: a 1x1 convolution, or a linear layer inside a transformer. Of neighbours that are removed together, the last one gets it. Adds parameters, which `linear` of `select` counts; only the export `diffusers-code` has a place for it.
    Linear,
}

impl LayerKind {
    const FREE: [Self; 4] = [Self::Shortcut, Self::Projection, Self::Conv2, Self::ConvOut];

    fn tail(self) -> TailKind {
        match self {
            Self::Shortcut => TailKind::Shortcut,
            Self::Projection => TailKind::Projection,
            Self::Conv2 => TailKind::Conv2,
            Self::ConvOut => TailKind::ConvOut,
            Self::Linear => TailKind::Linear,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Shortcut => "shortcut",
            Self::Projection => "projection",
            Self::Conv2 => "conv2",
            Self::ConvOut => "conv-out",
            Self::Linear => "linear",
        }
    }
}

fn free_kinds() -> BTreeSet<LayerKind> {
    LayerKind::FREE.into()
}

fn default_held_out() -> Whole<1, 90> {
    Whole::new(12)
}

fn default_batch() -> Whole<1, 65_536> {
    Whole::new(8)
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "reconstruct",
    version: 1,
    summary: "solves linear layers of a pruned model anew by least squares: closer to the teacher, without training",
    output: ArtefactKind::Model,
    seeded: false,
    computes: true,
    schema: |generator| Reconstruct::json_schema(generator),
};

impl Stage for Reconstruct {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest
            .list("kinds", self.kinds.iter().map(|kind| kind.name()))
            .field("held-out", self.held_out)
            .field("batch", self.batch);
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        let input = |name: &str, stage, kinds| Input { name: name.to_owned(), stage, kinds };
        vec![
            input("teacher", &self.teacher, &[ArtefactKind::Model]),
            input("student", &self.student, &[ArtefactKind::Model]),
            input("calibration", &self.calibration, &[ArtefactKind::Calibration]),
        ]
    }

    fn check(&self) -> Result<(), BadValue> {
        match self.kinds.is_empty() {
            true => Err(BadValue::new("kinds", "`kinds` is empty; name at least one kind of layer")),
            false => Ok(()),
        }
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        let (teacher, student) = (outlook.models.get("teacher")?, outlook.models.get("student")?);
        let points = outlook.rows.get("calibration")?;
        let needs = needs_of_pass(teacher, *points, self.batch.get(), outlook);
        let weights = needs.weights + UNet::bytes(&student.unet, student.dtype);
        Some(Needs { weights, disk: student.bytes, ..needs })
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let teacher = Model::open(context.input("teacher"))?;
        let student = Model::open(context.input("student"))?;
        let (teacher_unet, student_unet) = (teacher.unet(context.device)?, student.unet(context.device)?);
        let points = points(context, "calibration", teacher_unet.config())?;
        let kinds: Vec<TailKind> = self.kinds.iter().map(|kind| kind.tail()).collect();
        let work = Reconstructing {
            teacher: &teacher_unet,
            student: &student_unet,
            weights: &student.directory.unet_weights()?,
            points: &points,
            held_out: (points.len() * self.held_out.get() / 100).max(1),
            batch: self.batch.get(),
            kinds: &kinds,
            checkpoint: context.checkpoint,
            progress: context.progress,
            interrupt: context.interrupt,
        };
        let (mut new, record) = work.run()?;
        copies::transfer_tree(student.directory.path(), context.output, copies::link)
            .map_err(StageError::file(student.directory.path()))?;
        let weights = student.directory.unet_weights()?;
        for name in
            weights.names().filter(|name| !new.contains_key(*name)).map(str::to_owned).collect::<Vec<_>>()
        {
            let tensor = weights.tensor(&name, weights.dtype(&name)?, &candle_core::Device::Cpu)?;
            new.insert(name, tensor);
        }
        save_weights(&student.directory, &new, context.output)?;
        prune::write_maps(&student.directory, &record.linear_units, context.output)?;
        // A student that was trained or reconstructed before has these, which are linked from its artefact.
        for file in [HISTORY_FILE, RECONSTRUCTION_FILE] {
            copies::remove(&context.output.join(file)).map_err(StageError::file(context.output))?;
        }
        record.save(context.output).map_err(StageError::file(context.output))?;
        Computation::open(&context.input("student").path)?.save(context.output)
    }
}
