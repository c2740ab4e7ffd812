//! `evaluate`: what the models are worth, side by side, and whether the selection was a good one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::named::Named;
use super::score::points;
use super::{BadValue, Context, Drawing, FileInput, Input, Stage, StageError, StageInfo};
use crate::base::names::UnknownName;
use crate::base::{ArtefactKind, Manifest, StageId, UnitId};
use crate::data::prompts;
use crate::metric::{self, Baseline, Candidate, Evaluation, Fill, Metric};
use crate::model::ModelDirectory;
use crate::sample::NoiseSchedule;
use crate::score::{Limits, ScoringContext, joint_losses};
use crate::select::{SelectError, Selection};

/// `with:` of `use: evaluate`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Evaluate {
    /// The models, each by a name of its own: `{ teacher: teacher, pruned: student }`.
    models: Named,
    /// The name of the model that the others are held against. Default `teacher`.
    #[serde(default = "default_teacher")]
    teacher: String,
    /// What is measured (`laptop-diff list metrics`).
    metrics: Vec<String>,
    /// A text file, one prompt a line: what is drawn.
    prompts: PathBuf,
    /// How many of the prompts are drawn. Default 200.
    #[serde(default = "default_pictures")]
    pictures: usize,
    /// A CLIPModel directory, for the metrics that compare pictures with texts.
    scorer: Option<PathBuf>,
    /// For `attribute-accuracy`: a text file with everything a picture might show, one caption a line. Default: the prompts.
    captions: Option<PathBuf>,
    /// For `attribute-accuracy`: the words of each attribute, `{ colour: [red, blue], shape: [circle, square] }`.
    #[serde(default)]
    attributes: BTreeMap<String, Vec<String>>,
    /// A stage with held-out calibration points, for `output-loss` and for measuring `selection`.
    points: Option<StageId>,
    /// A stage with a selection: its joint loss and that of its baselines are measured on `points`.
    selection: Option<StageId>,
    /// How pictures are drawn.
    #[serde(default)]
    drawing: Drawing,
}

fn default_teacher() -> String {
    "teacher".to_owned()
}

fn default_pictures() -> usize {
    200
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "evaluate",
    version: 1,
    summary: "draws pictures with every model and measures quality, fidelity, size and speed",
    output: ArtefactKind::Metrics,
    seeded: true,
    computes: true,
    schema: |generator| Evaluate::json_schema(generator),
};

impl Stage for Evaluate {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        let names: Vec<_> = self.models.iter().map(|(name, _)| name).collect();
        manifest
            .field("models", names.join(" "))
            .field("teacher", &self.teacher)
            .field("metrics", self.metrics.join(" "))
            .field("pictures", self.pictures);
        self.drawing.describe(manifest, "drawing");
        for (attribute, words) in &self.attributes {
            manifest.field(&format!("attributes.{attribute}"), words.join(" "));
        }
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        let mut inputs: Vec<Input<'_>> = Vec::new();
        for (name, stage) in self.models.iter() {
            inputs.push(Input { name: format!("models.{name}"), stage, kinds: &[ArtefactKind::Model] });
        }
        let optional: [(&str, _, &'static [ArtefactKind]); 2] = [
            ("points", &self.points, &[ArtefactKind::Calibration]),
            ("selection", &self.selection, &[ArtefactKind::Selection]),
        ];
        for (name, stage, kinds) in optional {
            inputs.extend(stage.iter().map(|stage| Input { name: name.to_owned(), stage, kinds }));
        }
        inputs
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        let prompts = FileInput::path("prompts", &self.prompts);
        let others = [("scorer", &self.scorer), ("captions", &self.captions)];
        let others =
            others.into_iter().filter_map(|(name, path)| Some(FileInput::path(name, path.as_ref()?)));
        std::iter::once(prompts).chain(others).collect()
    }

    fn check(&self) -> Result<(), BadValue> {
        let bad = |name, message: String| Err(BadValue::new(name, message));
        if self.pictures == 0 {
            return bad("pictures", "`pictures` is 0; it must be at least 1".to_owned());
        }
        if !self.models.iter().any(|(name, _)| name == self.teacher) {
            let names: Vec<_> = self.models.iter().map(|(name, _)| name).collect();
            return bad(
                "models",
                format!("no model is called `{}`; there are {}", self.teacher, names.join(", ")),
            );
        }
        if self.selection.is_some() && self.points.is_none() {
            return bad(
                "selection",
                "`selection` is measured on held-out points; give `points` too".to_owned(),
            );
        }
        self.metrics().map_err(|error| BadValue::unknown("metrics", &error))?;
        self.drawing.check(|field| format!("drawing.{field}"))
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        // Before an hour of pictures, not after.
        let selection = self
            .selection
            .as_ref()
            .map(|_| selection_of_units(&context.input("selection").path))
            .transpose()?;
        let models: Vec<(&str, Model)> = self
            .models
            .iter()
            .map(|(name, _)| Ok((name, Model::open(context.input(&format!("models.{name}")))?)))
            .collect::<Result<_, StageError>>()?;
        let teacher = models.iter().find(|(name, _)| *name == self.teacher).map(|(_, model)| model);
        let teacher = teacher.expect("`check` found the teacher among the models");
        let device = context.device;

        let mut prompts = prompts::read(context.file("prompts"))?;
        prompts.truncate(self.pictures);
        let captions = match &self.captions {
            Some(_) => prompts::read(context.file("captions"))?,
            None => Vec::new(),
        };
        let encoder = self.drawing.encoder(&teacher.directory, teacher.dtype, device)?;
        let (conditioning, unconditional) = self.drawing.texts(&encoder, &prompts, context.progress)?;
        let schedule = NoiseSchedule::from_config(&teacher.directory.scheduler_config()?)?;
        let vae = self.drawing.vae(&teacher.directory, teacher.dtype, device)?;
        let scorer = match &self.scorer {
            Some(_) => {
                Some(ModelDirectory::open(context.file("scorer"))?.scorer(candle_core::DType::F32, device)?)
            }
            None => None,
        };
        let held_out = match &self.points {
            Some(_) => Some(points(context, "points")?),
            None => None,
        };
        let loaders: Vec<_> =
            models.iter().map(|(_, model)| || model.directory.unet(model.dtype, device)).collect();
        let candidates: Vec<Candidate<'_>> =
            models.iter().zip(&loaders).map(|((name, _), load)| Candidate { name, load }).collect();
        let metrics = self.metrics().expect("`check` found every metric");
        let evaluation = Evaluation {
            models: &candidates,
            teacher: &self.teacher,
            metrics: &metrics,
            schedule: &schedule,
            sampler: self.drawing.sampler(),
            steps: self.drawing.steps,
            guidance_scale: self.drawing.guidance_scale,
            latent: self.drawing.latent(&teacher.directory)?,
            vae: Some(&vae),
            scorer: scorer.as_ref(),
            prompts: &prompts,
            conditioning: &conditioning,
            unconditional: Some(&unconditional),
            captions: &captions,
            attributes: &self.attributes,
            points: held_out.as_ref(),
            batch: self.drawing.batch,
            random: &context.random,
        };
        let keep = |index: usize, fill: &Fill<'_>| {
            let part = self.part(context, models[index].0);
            context.intermediates.intermediate(&part, &|folder, checkpoint| Ok(fill(folder, checkpoint)?))
        };
        let mut outcome =
            evaluation.run::<StageError>(context.output, &keep, context.progress, context.interrupt)?;
        if let Some(selection) = selection {
            outcome.metrics.baselines = baselines(selection, context, teacher)?;
        }
        Ok(outcome.write(context.output)?)
    }
}

impl Evaluate {
    /// What the values and pictures of one model depend on: everything but the other models and the selection.
    fn part(&self, context: &Context<'_>, model: &str) -> Manifest {
        let others = ["models", "teacher", "input selection"];
        let mut part =
            context.manifest.part(|name| !others.contains(&name) && !name.starts_with("input models."));
        let digest = |name: &str| &context.input(&format!("models.{name}")).digest;
        part.field("part", "model").input("model", digest(model)).input("teacher", digest(&self.teacher));
        part
    }

    fn metrics(&self) -> Result<Vec<&'static dyn Metric>, UnknownName> {
        self.metrics.iter().map(|name| metric::find(name)).collect()
    }
}

/// A selection that is a set of units, so that it has a joint loss.
fn selection_of_units(folder: &Path) -> Result<Selection, StageError> {
    let selection = Selection::open(folder).map_err(StageError::file(folder))?;
    match selection.dropped_layers()? {
        Some(layout) => Err(StageError::pipeline(SelectError::NotUnits { layout: layout.name })),
        None => Ok(selection),
    }
}

/// The measured joint loss of the selection, then of each of its baselines.
fn baselines(
    selection: Selection,
    context: &Context<'_>,
    teacher: &Model,
) -> Result<Vec<Baseline>, StageError> {
    let mut baselines = vec![Baseline {
        name: SELECTED.to_owned(),
        joint_loss: 0.0,
        removed_parameters: selection.removed_parameters,
    }];
    let mut sets: Vec<BTreeSet<UnitId>> = vec![selection.removed()];
    for other in selection.baselines {
        sets.push(other.removed.into_iter().collect());
        baselines.push(Baseline {
            name: other.name,
            joint_loss: 0.0,
            removed_parameters: other.removed_parameters,
        });
    }
    let scoring = ScoringContext {
        limits: Limits::default(),
        checkpoint: context.checkpoint,
        progress: context.progress,
        interrupt: context.interrupt,
    };
    let losses = joint_losses(&teacher.unet(context.device)?, &points(context, "points")?, &sets, &scoring)?;
    for (baseline, loss) in baselines.iter_mut().zip(losses) {
        baseline.joint_loss = loss;
    }
    Ok(baselines)
}

/// The name of the selection itself among the measured baselines.
pub const SELECTED: &str = "selected";
