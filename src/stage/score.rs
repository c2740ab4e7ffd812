//! `score`: how much each unit matters, and whether losses add on this model.

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::{ArtefactKind, BadValue, Context, Input, Stage, StageError, StageInfo};
use crate::base::{Manifest, StageId};
use crate::data::{self, Calibration};
use crate::score::{self, Criterion, Limits, Work, additivity, criterion};

/// `with:` of `use: score`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Score {
    /// The stage with the teacher.
    model: StageId,
    /// The stage with the calibration points.
    calibration: StageId,
    /// Which criteria (`laptop-diff list criteria`); those that traverse the U-Net share one traversal. Default `[output-loss]`, the paper's.
    #[serde(default = "default_criteria")]
    criteria: Vec<String>,
    /// Random sets of units whose joint loss is measured and held against what single losses predict. Default 24; 0 for none.
    #[serde(default = "default_additivity_sets")]
    additivity_sets: usize,
    /// Calibration points that walk together. Default 8.
    #[serde(default = "default_batch")]
    batch: usize,
    /// Variants of the U-Net that walk together beside the teacher, or fewer where memory is short. Default 64.
    #[serde(default = "default_variants")]
    variants: usize,
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
    // 3: additivity is measured of every criterion. 2: scores.json holds the U-Net's configuration.
    version: 3,
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
            .field("variants", self.variants);
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![
            Input { name: "model".to_owned(), stage: &self.model, kind: ArtefactKind::Model },
            Input { name: "calibration".to_owned(), stage: &self.calibration, kind: ArtefactKind::Calibration },
        ]
    }

    fn check(&self) -> Result<(), BadValue> {
        for (name, value) in
            [("batch", self.batch), ("variants", self.variants), ("criteria", self.criteria.len())]
        {
            if value == 0 {
                return Err(BadValue { name, message: format!("`{name}` needs at least 1") });
            }
        }
        self.criteria().map(drop)
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let model = Model::open(context.input("model"))?;
        let unet = model.unet(context.device)?;
        let points = points(context, "calibration")?;
        let criteria = self.criteria().expect("`check` found every criterion");
        let work = Work {
            limits: Limits { points: self.batch, variants: self.variants },
            checkpoint: context.checkpoint,
            progress: context.progress,
            interrupt: context.interrupt,
        };
        let weights = model.directory.unet_weights()?;
        let mut scores = score::score(&unet, &weights, &points, &criteria, &context.random, &work)?;
        if self.additivity_sets > 0 {
            context.progress.note("measuring additivity");
            let sets = self.additivity_sets;
            let measured = additivity::measure(&unet, &points, &scores, sets, &context.random, &work)?;
            scores.additivity = Some(measured);
        }
        scores.save(context.output).map_err(StageError::file(context.output))
    }
}

impl Score {
    fn criteria(&self) -> Result<Vec<&'static dyn Criterion>, BadValue> {
        let find = |name: &String| {
            criterion(name).map_err(|error| BadValue { name: "criteria", message: error.to_string() })
        };
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
