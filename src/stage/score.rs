//! `score`: how much each unit matters, and whether single losses add up on this model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_core::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::criterion_blocks::{self, Blocks};
use super::delta_clip::DeltaClip;
use super::model::Model;
use super::needs::{self, KnownModel, KnownRows, Needs, Outlook};
use super::points::points;
use super::{BadValue, Context, FileInput, Input, ResolvedFile, Stage, StageError, StageInfo, memory};
use crate::base::names::UnknownName;
use crate::base::{ArtefactKind, Manifest, StageId, Whole};
use crate::data::Calibration;
use crate::model::UNetConfig;
use crate::model::network::Granularity;
use crate::model::unet::UNet;
use crate::sample::{self, NoiseSchedule};
use crate::score::{
    self, CRITERIA, Criterion, Limits, Need, ScoringContext, Space, Teacher, additivity, criterion,
};

/// `with:` of `use: score`: fixed parameters, and those of the criteria.
#[derive(Debug)]
pub(super) struct Score {
    parameters: Parameters,
    /// The criteria whose parameters are given.
    blocks: Blocks,
}

impl<'de> Deserialize<'de> for Score {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (parameters, blocks) = criterion_blocks::split(deserializer)?;
        Ok(Self { parameters, blocks })
    }
}

/// `with:` of `use: score`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Parameters {
    /// The stage with the teacher.
    model: StageId,
    /// The stage with the calibration points.
    calibration: StageId,
    /// The criteria (`laptop-diff list criteria`). Criteria that need a traversal of the U-Net share one. Criteria that need gradients, `taylor` and `diff-pruning`, share one backward pass with weights and gradients in f32: 8 bytes per parameter (21 GB for SDXL) beside the activations of a batch. Default `[output-loss]`, the paper's.
    #[serde(default = "default_criteria")]
    criteria: Vec<String>,
    /// The space in which differences of predictions are measured: by `output-loss` and `reconstructed-loss`, in the Gram matrix, for additivity, and by a selection that is refined. Default `prediction`, the paper's.
    #[serde(default)]
    space: Space,
    /// The smallest removable units, any of `resnet`, `block`, `transformer`, `attn1`, `attn2`, `ff`. A module that consists only of units is a unit too. `[resnet, attn1, attn2, ff]` splits blocks, `[resnet, transformer]` removes whole Transformer2Ds. Default `[resnet, block]`.
    #[serde(default)]
    granularity: Granularity,
    /// Random sets of units whose measured joint loss is compared with what single losses predict. Default 24; 0 for none.
    #[serde(default = "default_additivity_sets")]
    additivity_sets: Whole<0, 100_000>,
    /// Calibration points per batch. Default 8.
    #[serde(default = "default_batch")]
    batch: Whole<1, 65_536>,
    /// Variants of the U-Net per traversal, besides the teacher; fewer if memory is short. Default 64.
    #[serde(default = "default_variants")]
    variants: Whole<1, 65_536>,
    /// The pictures of the criterion `delta-clip`, which requires this block.
    delta_clip: Option<DeltaClip>,
}

fn default_criteria() -> Vec<String> {
    vec!["output-loss".to_owned()]
}

fn default_additivity_sets() -> Whole<0, 100_000> {
    Whole::new(24)
}

fn default_batch() -> Whole<1, 65_536> {
    Whole::new(Limits::POINTS)
}

fn default_variants() -> Whole<1, 65_536> {
    Whole::new(Limits::VARIANTS)
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "score",
    // 6: pictures for delta-clip are rounded as by Pillow. 5: random sets reach shares of the removable parameters, and agreement is over distinct sets; gradients are in f32 on every device.
    // 4: block influence is summed in double precision. 3: additivity is measured for every criterion. 2: scores.json holds the U-Net's configuration.
    version: 6,
    summary: "measures how much each unit matters, in one walk through the U-Net",
    output: ArtefactKind::Scores,
    seeded: true,
    computes: true,
    schema: criterion_blocks::schema::<Parameters>,
};

impl Stage for Score {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        let parameters = &self.parameters;
        manifest
            .list("criteria", &parameters.criteria)
            .field("additivity-sets", parameters.additivity_sets)
            .field("batch", parameters.batch)
            .field("variants", parameters.variants)
            .field("granularity", &parameters.granularity);
        if !parameters.space.is_default() {
            manifest.field("space", parameters.space);
        }
        // Parameters of a criterion that is not asked for change nothing. In the order of the table, each once.
        let asked: BTreeSet<&str> = parameters.criteria.iter().map(String::as_str).collect();
        for info in CRITERIA.iter().filter(|info| asked.contains(info.name)) {
            if let Ok(criterion) = self.criterion(info.name) {
                criterion.describe(manifest);
            }
        }
        if let Some(pictures) = self.pictures() {
            pictures.describe(manifest);
        }
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        let Parameters { model, calibration, .. } = &self.parameters;
        vec![
            Input { name: "model".to_owned(), stage: model, kinds: &[ArtefactKind::Model] },
            Input { name: "calibration".to_owned(), stage: calibration, kinds: &[ArtefactKind::Calibration] },
        ]
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        self.pictures().map(DeltaClip::files).unwrap_or_default()
    }

    fn check_files(&self, files: &BTreeMap<String, ResolvedFile>) -> Result<(), StageError> {
        self.pictures().map_or(Ok(()), |pictures| pictures.check_files(files))
    }

    fn check(&self) -> Result<(), BadValue> {
        if self.parameters.criteria.is_empty() {
            return Err(BadValue::new("criteria", "`criteria` is empty; name at least one criterion"));
        }
        let criteria = self.criteria().map_err(|error| BadValue::unknown("criteria", &error))?;
        if let Some(needy) = drawing(&criteria).filter(|_| self.parameters.delta_clip.is_none()) {
            let name = needy.info().name;
            return Err(BadValue::new(
                "criteria",
                format!("`{name}` needs pictures, but there is no block `delta-clip`"),
            )
            .help("add `delta-clip: { scorer: FOLDER, prompts: FILE }`"));
        }
        self.parameters.delta_clip.as_ref().map_or(Ok(()), DeltaClip::check)
    }

    fn check_unet(&self, unet: &UNetConfig) -> Result<(), StageError> {
        if self.pictures().is_none() { Ok(()) } else { Ok(sample::check_inputs(unet)?) }
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        let (model, points) = (outlook.models.get("model")?, outlook.rows.get("calibration")?);
        let needs = needs_of_pass(model, *points, self.parameters.batch.get(), outlook);
        let criteria = self.criteria().unwrap_or_default();
        if !criteria.iter().any(|criterion| criterion.needs().contains(&Need::Gradients)) {
            return Some(needs);
        }
        // Weights and gradients in f32, beside the U-Net that is walked.
        let optimiser = score::gradient_bytes(model.unet.inventory().parameters());
        Some(Needs { optimiser, least: needs.least + optimiser, ..needs })
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let parameters = &self.parameters;
        let model = Model::open(context.input("model"))?;
        let unet = model.unet(context.device)?.at(parameters.granularity.clone());
        let points = points(context, "calibration", unet.config())?;
        require_pass(&unet, &points, parameters.batch.get(), context.device)?;
        let criteria = self.criteria().expect("`check` found every criterion");
        let needs = |need| criteria.iter().any(|criterion| criterion.needs().contains(&need));
        let scheduled = parameters.space.needs_schedule() || needs(Need::Task) || needs(Need::Gradients);
        let schedule = match scheduled {
            true => Some(NoiseSchedule::from_config(&model.directory.scheduler_config()?)?),
            false => None,
        };
        let weights = space_weights(parameters.space, &points, schedule.as_ref())?;
        let scoring = ScoringContext {
            limits: Limits { points: parameters.batch.get(), variants: parameters.variants.get() },
            weights: weights.as_deref(),
            checkpoint: context.checkpoint,
            progress: context.progress,
            interrupt: context.interrupt,
        };
        let pictures = self.pictures().map(|pictures| pictures.open(context, &model)).transpose()?;
        let clip_score = pictures.as_ref().map(|pictures| pictures.clip_score(context)).transpose()?;
        let teacher = Teacher {
            unet: &unet,
            weights: &model.directory.unet_weights()?,
            points: &points,
            schedule: schedule.as_ref(),
            clip_score: clip_score.as_deref(),
            random: &context.random,
        };
        let mut scores = score::score(&teacher, &criteria, &scoring)?;
        scores.space = parameters.space;
        let sets = parameters.additivity_sets.get();
        if sets > 0 {
            context.progress.note("measuring additivity");
            let measured = additivity::measure(&unet, &points, &scores, sets, &context.random, &scoring)?;
            scores.additivity = Some(measured);
        }
        scores.save(context.output).map_err(StageError::file(context.output))
    }
}

impl Score {
    /// A criterion with its parameters, or with their defaults.
    fn criterion(&self, name: &str) -> Result<Arc<dyn Criterion>, UnknownName> {
        match self.blocks.iter().find(|block| block.info().name == name) {
            Some(block) => Ok(block.clone()),
            None => criterion(name),
        }
    }

    /// The criteria that are asked for.
    fn criteria(&self) -> Result<Vec<Arc<dyn Criterion>>, UnknownName> {
        self.parameters.criteria.iter().map(|name| self.criterion(name)).collect()
    }

    /// How pictures are drawn, if a criterion needs them.
    fn pictures(&self) -> Option<&DeltaClip> {
        let criteria = self.criteria().unwrap_or_default();
        self.parameters.delta_clip.as_ref().filter(|_| drawing(&criteria).is_some())
    }
}

/// The weights of the points in a space; none where all are 1.
pub(super) fn space_weights(
    space: Space,
    points: &Calibration,
    schedule: Option<&NoiseSchedule>,
) -> Result<Option<Vec<f64>>, StageError> {
    let schedule = schedule.filter(|_| space.needs_schedule());
    Ok(schedule.map(|schedule| space.weights(points, schedule)).transpose()?)
}

/// What a stage takes that sends batches of points through a model.
pub(super) fn needs_of_pass(
    model: &KnownModel,
    points: KnownRows,
    batch: usize,
    outlook: &Outlook<'_>,
) -> Needs {
    let ((height, width), unet) = (points.latents, &model.unet);
    let rows = points.rows.and_then(|rows| usize::try_from(rows).ok());
    let batch = batch.min(rows.unwrap_or(batch));
    let activations = memory::pass(unet, batch, (height, width), outlook.activations(model.dtype));
    let data = needs::points(rows.unwrap_or(0), [unet.in_channels, height, width], unet);
    Needs { data, ..Needs::running(UNet::bytes(unet, model.dtype), activations) }
}

/// A batch of points goes through the teacher.
pub(super) fn require_pass(
    unet: &UNet,
    points: &Calibration,
    batch: usize,
    device: &Device,
) -> Result<(), StageError> {
    let (count, _, height, width) = points.sample.dims4()?;
    let batch = batch.min(count);
    let needed = memory::pass(unet.config(), batch, (height, width), unet.dtype());
    Ok(memory::require(needed, device, || format!("{batch} calibration points"), "`batch`")?)
}

/// A criterion that needs pictures.
fn drawing(criteria: &[Arc<dyn Criterion>]) -> Option<&Arc<dyn Criterion>> {
    criteria.iter().find(|criterion| criterion.needs().contains(&Need::Pictures))
}
