//! `score`: how much each unit matters, and whether losses add on this model.

use schemars::JsonSchema;
use serde::Deserialize;

use super::delta_clip::DeltaClip;
use super::model::Model;
use super::{BadValue, Context, FileInput, Input, Stage, StageError, StageInfo};
use crate::base::{ArtefactKind, Manifest, StageId};
use crate::data::{self, Calibration};
use crate::model::network::Granularity;
use crate::sample::NoiseSchedule;
use crate::score::{self, Criterion, Limits, Need, Teacher, Weighting, Work, additivity, criterion};

/// `with:` of `use: score`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Score {
    /// The stage with the teacher.
    model: StageId,
    /// The stage with the calibration points.
    calibration: StageId,
    /// Which criteria (`laptop-diff list criteria`). Those that traverse the U-Net share one traversal. Those that read gradients, `taylor` and `diff-pruning`, share one backward pass, with weights and gradients in f32: 8 bytes per parameter, 21 GB for SDXL, beside the activations of a batch. Default `[output-loss]`, the paper's.
    #[serde(default = "default_criteria")]
    criteria: Vec<String>,
    /// The smallest units that may go, any of `resnet`, `block`, `transformer`, `attn1`, `attn2`, `ff`; what holds nothing but units is a unit too. `[resnet, attn1, attn2, ff]` takes blocks apart, `[resnet, transformer]` takes Transformer2Ds whole. Default `[resnet, block]`.
    #[serde(default)]
    granularity: Granularity,
    /// Random sets of units whose joint loss is measured and held against what single losses predict. Default 24; 0 for none.
    #[serde(default = "default_additivity_sets")]
    additivity_sets: usize,
    /// Calibration points that walk together. Default 8.
    #[serde(default = "default_batch")]
    batch: usize,
    /// Variants of the U-Net that walk together beside the teacher, or fewer where memory is short. Default 64.
    #[serde(default = "default_variants")]
    variants: usize,
    /// Read by the criterion `timestep-weighted` alone.
    #[serde(default)]
    timestep_weighted: TimestepWeighted,
    /// Read by the criterion `diff-pruning` alone.
    #[serde(default)]
    diff_pruning: DiffPruning,
    /// Read by the criterion `delta-clip` alone, which cannot do without: what is drawn, and who judges.
    delta_clip: Option<DeltaClip>,
}

/// `timestep-weighted:` of `use: score`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct TimestepWeighted {
    /// What each timestep counts. Default `min-snr`.
    weighting: Weighting,
}

/// `diff-pruning:` of `use: score`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct DiffPruning {
    /// Timesteps whose task loss is at most this share of the largest are left out. Default 0.1, the authors' for latent models; for DDPM they have 0.05.
    threshold: f64,
}

impl Default for DiffPruning {
    fn default() -> Self {
        Self { threshold: 0.1 }
    }
}

fn default_criteria() -> Vec<String> {
    vec!["output-loss".to_owned()]
}

fn default_additivity_sets() -> usize {
    24
}

fn default_batch() -> usize {
    Limits::default().points
}

fn default_variants() -> usize {
    Limits::default().variants
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "score",
    // 5: random sets reach shares of what can go, and only different ones that vary agree with anything; gradients are in f32 on every device.
    // 4: block influence is summed in double precision. 3: additivity is measured of every criterion. 2: scores.json holds the U-Net's configuration.
    version: 5,
    summary: "measures what losing each unit does, in one walk through the U-Net",
    output: ArtefactKind::Scores,
    seeded: true,
    computes: true,
    schema: |generator| Score::json_schema(generator),
};

impl Stage for Score {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest
            .field("criteria", self.criteria.join(" "))
            .field("additivity-sets", self.additivity_sets)
            .field("batch", self.batch)
            .field("variants", self.variants)
            .field("granularity", &self.granularity);
        // What only a criterion reads that is not asked for decides nothing.
        if self.asks_for("timestep-weighted") {
            let weighting = self.timestep_weighted.weighting;
            manifest.field("timestep-weighted.weighting", format_args!("{weighting:?}"));
        }
        if self.asks_for("diff-pruning") {
            manifest.float("diff-pruning.threshold", self.diff_pruning.threshold);
        }
        if let Some(delta_clip) = self.delta_clip() {
            delta_clip.describe(manifest);
        }
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![
            Input { name: "model".to_owned(), stage: &self.model, kind: ArtefactKind::Model },
            Input {
                name: "calibration".to_owned(),
                stage: &self.calibration,
                kind: ArtefactKind::Calibration,
            },
        ]
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        self.delta_clip().map(DeltaClip::files).unwrap_or_default()
    }

    fn check(&self) -> Result<(), BadValue> {
        for (name, value) in
            [("batch", self.batch), ("variants", self.variants), ("criteria", self.criteria.len())]
        {
            if value == 0 {
                return Err(BadValue::new(name, format!("`{name}` needs at least 1")));
            }
        }
        let threshold = self.diff_pruning.threshold;
        if !(0.0..1.0).contains(&threshold) {
            let message = format!("`threshold` is {threshold}; it must be at least 0 and below 1");
            return Err(BadValue::new("diff-pruning.threshold", message));
        }
        self.criteria()?;
        if self.asks_for(DELTA_CLIP) && self.delta_clip.is_none() {
            let message = format!(
                "`{DELTA_CLIP}` draws pictures; give `{DELTA_CLIP}: {{ scorer: FOLDER, prompts: FILE }}` too"
            );
            return Err(BadValue::new("criteria", message));
        }
        self.delta_clip.as_ref().map_or(Ok(()), DeltaClip::check)
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let model = Model::open(context.input("model"))?;
        let unet = model.unet(context.device)?.at(self.granularity.clone());
        let points = points(context, "calibration")?;
        let criteria = self.criteria().expect("`check` found every criterion");
        let work = Work {
            limits: Limits { points: self.batch, variants: self.variants },
            checkpoint: context.checkpoint,
            progress: context.progress,
            interrupt: context.interrupt,
        };
        let needs = |need| criteria.iter().any(|criterion| criterion.needs().contains(&need));
        let schedule = match needs(Need::Task) || needs(Need::Gradients) {
            true => Some(NoiseSchedule::from_config(&model.directory.scheduler_config()?)?),
            false => None,
        };
        let studio = self.delta_clip().map(|delta_clip| delta_clip.open(context, &model)).transpose()?;
        let critic = studio.as_ref().map(|studio| studio.critic(context)).transpose()?;
        let teacher = Teacher {
            unet: &unet,
            weights: &model.directory.unet_weights()?,
            points: &points,
            schedule: schedule.as_ref(),
            clip_score: critic.as_deref(),
            weighting: self.timestep_weighted.weighting,
            threshold: self.diff_pruning.threshold,
            random: &context.random,
        };
        let mut scores = score::score(&teacher, &criteria, &work)?;
        if self.additivity_sets > 0 {
            context.progress.note("measuring additivity");
            let sets = self.additivity_sets;
            let measured = additivity::measure(&unet, &points, &scores, sets, &context.random, &work)?;
            scores.additivity = Some(measured);
        }
        scores.save(context.output).map_err(StageError::file(context.output))
    }
}

const DELTA_CLIP: &str = "delta-clip";

impl Score {
    fn asks_for(&self, criterion: &str) -> bool {
        self.criteria.iter().any(|name| name == criterion)
    }

    /// What `delta-clip` needs, where it is asked for.
    fn delta_clip(&self) -> Option<&DeltaClip> {
        self.delta_clip.as_ref().filter(|_| self.asks_for(DELTA_CLIP))
    }

    fn criteria(&self) -> Result<Vec<&'static dyn Criterion>, BadValue> {
        let find =
            |name: &String| criterion(name).map_err(|error| BadValue::new("criteria", error.to_string()));
        self.criteria.iter().map(find).collect()
    }
}

/// The points of a calibration input.
pub(super) fn points(context: &Context<'_>, input: &str) -> Result<Calibration, StageError> {
    let folder = &context.input(input).path;
    let calibration = data::Points::load(folder, context.device)?.calibration;
    calibration.check(folder)?;
    Ok(calibration)
}
