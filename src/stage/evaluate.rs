//! `evaluate`: compares models with their teacher, and a selection with its baselines.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::DType;
use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::named::Named;
use super::needs::{self, Needs, Outlook};
use super::points::points;
use super::resolved_file::path_of;
use super::sources::{prompts_file, scorer_folder};
use super::{
    BadValue, Context, Drawing, FileInput, Input, ResolvedFile, Stage, StageError, StageInfo, memory,
};
use crate::backend::Random;
use crate::base::names::{self, UnknownName};
use crate::base::{ArtefactKind, Manifest, StageId, UnitId, Whole};
use crate::data::{Calibration, prompts};
use crate::metric::{self, Baseline, Candidate, Evaluation, Fill, Metric, Need, SELECTED, Texts};
use crate::model::network::Conditioning;
use crate::model::unet::UNet;
use crate::model::vae::{Autoencoder, VaeConfig};
use crate::model::{ModelDirectory, Scorer, UNetConfig};
use crate::sample::{self, NoiseSchedule};
use crate::score::{Limits, ScoringContext, joint_losses};
use crate::select::{SelectError, Selection};

/// `with:` of `use: evaluate`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Evaluate {
    /// The models, each under a name: `{ teacher: teacher, pruned: student }`.
    models: Named,
    /// The name of the model that the others are compared with. Default `teacher`.
    #[serde(default = "default_teacher")]
    teacher: String,
    /// The metrics (`laptop-diff list metrics`).
    metrics: Vec<String>,
    /// A text file with the prompts of the pictures, one per line.
    prompts: PathBuf,
    /// The number of prompts to draw, from the first. Default 200.
    #[serde(default = "default_pictures")]
    pictures: Whole<1, 1_000_000>,
    /// A CLIPModel directory, required by the metrics that compare pictures with texts.
    scorer: Option<PathBuf>,
    /// For `attribute-accuracy`: a text file with the captions that the scorer chooses from, one per line. Default: the prompts.
    captions: Option<PathBuf>,
    /// For `attribute-accuracy`: the words of each attribute, such as `{ colour: [red, blue], shape: [circle, square] }`.
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

fn default_pictures() -> Whole<1, 1_000_000> {
    Whole::new(200)
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
        manifest
            .list("models", self.models.iter().map(|(name, _)| name))
            .field("teacher", &self.teacher)
            .list("metrics", &self.metrics)
            .field("pictures", self.pictures);
        self.drawing.describe(manifest, "drawing");
        let attributes = self.attributes.iter().filter(|_| self.needs(Need::Attributes));
        for (attribute, words) in attributes {
            manifest.list(&format!("attributes.{attribute}"), words);
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
        let mut files = vec![prompts_file("prompts", &self.prompts, |count| count.min(self.pictures.get()))];
        files.extend(self.scorer().map(|path| scorer_folder("scorer", path)));
        files.extend(self.captions().map(|path| prompts_file("captions", path, |count| count)));
        files
    }

    fn check_files(&self, files: &BTreeMap<String, ResolvedFile>) -> Result<(), StageError> {
        let prompts = self.drawn(path_of(files, "prompts"))?;
        let texts = Texts { prompts: &prompts, attributes: &self.attributes };
        let metrics = self.metrics().expect("`check` found every metric");
        metrics.iter().try_for_each(|metric| metric.check(texts)).map_err(StageError::input)?;
        if self.captions().is_some() {
            prompts::read(path_of(files, "captions"))?;
        }
        match self.scorer() {
            Some(_) => Ok(ModelDirectory::open(path_of(files, "scorer"))?.check_scorer()?),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), BadValue> {
        let names: Vec<_> = self.models.iter().map(|(name, _)| name.to_owned()).collect();
        if !names.contains(&self.teacher) {
            let message = format!("the teacher `{}` is not among the models", self.teacher);
            return Err(BadValue::new("models", message).help(names::help(&self.teacher, &names)));
        }
        if self.selection.is_some() && self.points.is_none() {
            let message =
                "the joint loss of `selection` is measured on held-out points, but `points` is missing";
            return Err(
                BadValue::new("selection", message).help("add `points:` with the id of a calibrate stage")
            );
        }
        if let Some(name) = names.iter().find(|name| !metric::names_a_folder(name)) {
            let message = format!("the model name `{name}` cannot name a folder");
            let bad = BadValue::new("models", message);
            return Err(bad.help("use letters, digits, `-`, `_` and `.`, and do not begin with `.`"));
        }
        self.check_needs()?;
        self.drawing.check(|field| format!("drawing.{field}"))
    }

    fn check_unet(&self, unet: &UNetConfig) -> Result<(), StageError> {
        Ok(sample::check_inputs(unet)?)
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        let models = self
            .models
            .iter()
            .filter_map(|(name, _)| outlook.models.get(format!("models.{name}").as_str()).copied());
        // One model is in memory at a time.
        let count = self.pictures.get();
        let largest = models.map(|model| (model, self.drawing.needs(model, count, outlook)));
        let (model, needs) = largest.max_by_key(|(_, needs)| needs.memory())?;
        let (height, width) = self.drawing.latents_of(model);
        let side = model.vae.as_ref().map_or(8, VaeConfig::downscale);
        let points = outlook.rows.get("points").and_then(|points| usize::try_from(points.rows?).ok());
        let data = needs::points(points.unwrap_or(0), [model.unet.in_channels, height, width], &model.unet);
        // Pictures before they are compressed.
        let disk = memory::product(&[self.models.iter().count(), count, 3, height * side, width * side]);
        Some(Needs { data, disk, ..needs })
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        // A selection without a joint loss fails here, not after an hour of drawing.
        let selection = match &self.selection {
            Some(_) => Some(selection_of_units(&context.input("selection").path)?),
            None => None,
        };
        let opened = self.models.iter().map(|(name, _)| Ok((name, self.open(context, name)?)));
        let models: Vec<(&str, Model)> = opened.collect::<Result<_, StageError>>()?;
        let teacher = models.iter().find(|(name, _)| *name == self.teacher).map(|(_, model)| model);
        let teacher = teacher.expect("`check` found the teacher among the models");
        let held_out = match &self.points {
            Some(_) => Some(points(context, "points", &teacher.directory.unet_config()?)?),
            None => None,
        };
        let inputs = Inputs::read(self, teacher, held_out, context)?;
        let (mut baselines, mut teacher_unet) = (Vec::new(), None);
        if let (Some(selection), Some(points)) = (selection, &inputs.points) {
            let unet = teacher.unet(context.device)?;
            baselines = joint_losses_of(selection, points, &unet, context)?;
            teacher_unet = Some(unet);
        }
        // The evaluation begins with the teacher, so a teacher that is already loaded is passed on; each other model
        // replaces it.
        let teacher_unet = RefCell::new(teacher_unet);
        let load = |name: &str, model: &Model| match teacher_unet.take().filter(|_| name == self.teacher) {
            Some(unet) => Ok(unet),
            None => model.directory.unet(model.dtype, context.device),
        };
        let loaders: Vec<_> = models.iter().map(|(name, model)| move || load(name, model)).collect();
        let candidates: Vec<_> =
            models.iter().zip(&loaders).map(|((name, _), load)| Candidate { name, load }).collect();
        let metrics = self.metrics().expect("`check` found every metric");
        let evaluation = inputs.evaluation(self, &candidates, &metrics, &context.random);
        let keep = |index: usize, fill: &Fill<'_>| {
            let manifest = self.one_model(context, models[index].0);
            context.intermediates.intermediate(&manifest, &|folder, checkpoint| Ok(fill(folder, checkpoint)?))
        };
        let mut outcome =
            evaluation.run::<StageError>(context.output, &keep, context.progress, context.interrupt)?;
        outcome.metrics.baselines = baselines;
        Ok(outcome.write(context.output)?)
    }
}

impl Evaluate {
    fn open(&self, context: &Context<'_>, name: &str) -> Result<Model, StageError> {
        Model::open(context.input(&format!("models.{name}")))
    }

    /// What the values and pictures of one model depend on: everything except the other models and the selection.
    fn one_model(&self, context: &Context<'_>, model: &str) -> Manifest {
        let others = ["models", "teacher", "input selection"];
        let mut part =
            context.manifest.part(|name| !others.contains(&name) && !name.starts_with("input models."));
        let digest = |name: &str| &context.input(&format!("models.{name}")).digest;
        part.field("part", "model").input("model", digest(model)).input("teacher", digest(&self.teacher));
        part
    }

    /// Fails if a metric is unknown, or if what it needs is not given.
    fn check_needs(&self) -> Result<(), BadValue> {
        for metric in self.metrics().map_err(|error| BadValue::unknown("metrics", &error))? {
            for need in metric.needs() {
                let (parameter, given) = match need {
                    // Prompts are always given.
                    Need::Pictures => continue,
                    Need::Scorer => ("scorer", self.scorer.is_some()),
                    Need::Points => ("points", self.points.is_some()),
                    Need::Attributes => ("attributes", !self.attributes.is_empty()),
                };
                if !given {
                    let message = format!("`{}` needs `{parameter}`, which is not given", metric.name());
                    let help = format!("add `{parameter}:`, or leave the metric out");
                    return Err(BadValue::new("metrics", message).help(help));
                }
            }
        }
        Ok(())
    }

    /// Whether a metric needs this.
    fn needs(&self, need: Need) -> bool {
        self.metrics().is_ok_and(|metrics| metrics.iter().any(|metric| metric.needs().contains(&need)))
    }

    /// The scorer, if it is used.
    fn scorer(&self) -> Option<&Path> {
        self.scorer.as_deref().filter(|_| self.needs(Need::Scorer))
    }

    /// The file of captions, if it is used.
    fn captions(&self) -> Option<&Path> {
        self.captions.as_deref().filter(|_| self.needs(Need::Attributes))
    }

    /// The prompts that are drawn.
    fn drawn(&self, path: &Path) -> Result<Vec<String>, StageError> {
        let mut prompts = prompts::read(path)?;
        prompts.truncate(self.pictures.get());
        Ok(prompts)
    }

    fn metrics(&self) -> Result<Vec<&'static dyn Metric>, UnknownName> {
        self.metrics.iter().map(|name| metric::find(name)).collect()
    }
}

/// The files and the parts of the teacher that every model is measured with.
struct Inputs {
    prompts: Vec<String>,
    captions: Vec<String>,
    conditioning: Conditioning,
    unconditional: Conditioning,
    schedule: NoiseSchedule,
    latent: [usize; 3],
    vae: Autoencoder,
    scorer: Option<Scorer>,
    points: Option<Calibration>,
}

impl Inputs {
    fn read(
        stage: &Evaluate,
        teacher: &Model,
        points: Option<Calibration>,
        context: &Context<'_>,
    ) -> Result<Self, StageError> {
        let (directory, dtype, device) = (&teacher.directory, teacher.dtype, context.device);
        let prompts = stage.drawn(context.file("prompts"))?;
        let count = prompts.len();
        let captions = match stage.captions() {
            Some(_) => prompts::read(context.file("captions"))?,
            None => Vec::new(),
        };
        let encoder = stage.drawing.encoder(directory, dtype, device)?;
        let (conditioning, unconditional) =
            stage.drawing.texts(&encoder, &prompts, context.progress, context.interrupt)?;
        let scorer = match stage.scorer() {
            Some(_) => Some(ModelDirectory::open(context.file("scorer"))?.scorer(DType::F32, device)?),
            None => None,
        };
        Ok(Self {
            prompts,
            captions,
            conditioning,
            unconditional,
            schedule: NoiseSchedule::from_config(&directory.scheduler_config()?)?,
            latent: stage.drawing.latent(directory, count, dtype, device)?,
            vae: stage.drawing.vae(directory, dtype, device)?,
            scorer,
            points,
        })
    }

    fn evaluation<'a>(
        &'a self,
        stage: &'a Evaluate,
        models: &'a [Candidate<'a>],
        metrics: &'a [&'static dyn Metric],
        random: &'a Random,
    ) -> Evaluation<'a> {
        Evaluation {
            models,
            teacher: &stage.teacher,
            metrics,
            schedule: &self.schedule,
            sampler: stage.drawing.sampler(),
            steps: stage.drawing.steps.get(),
            guidance_scale: stage.drawing.guidance_scale.get(),
            latent: self.latent,
            vae: Some(&self.vae),
            scorer: self.scorer.as_ref(),
            prompts: &self.prompts,
            conditioning: &self.conditioning,
            unconditional: Some(&self.unconditional),
            captions: &self.captions,
            attributes: &stage.attributes,
            points: self.points.as_ref(),
            batch: stage.drawing.batch.get(),
            random,
        }
    }
}

/// Reads a selection. Fails unless it is a set of units, which has a joint loss.
fn selection_of_units(folder: &Path) -> Result<Selection, StageError> {
    let selection = Selection::open(folder).map_err(StageError::file(folder))?;
    match selection.dropped_layers()? {
        Some(layout) => Err(StageError::pipeline(SelectError::NotUnits { layout: layout.name })),
        None => Ok(selection),
    }
}

/// The measured joint loss of the selection, then of each of its baselines.
fn joint_losses_of(
    selection: Selection,
    points: &Calibration,
    teacher: &UNet,
    context: &Context<'_>,
) -> Result<Vec<Baseline>, StageError> {
    let own = (SELECTED.to_owned(), selection.removed(), selection.removed_parameters);
    let others = selection.baselines.into_iter();
    let others = others.map(|one| (one.name, one.removed.into_iter().collect(), one.removed_parameters));
    let all: Vec<(String, BTreeSet<UnitId>, u64)> = std::iter::once(own).chain(others).collect();
    let sets: Vec<_> = all.iter().map(|(_, removed, _)| removed.clone()).collect();
    let scoring = ScoringContext {
        limits: Limits::default(),
        checkpoint: context.checkpoint,
        progress: context.progress,
        interrupt: context.interrupt,
    };
    let losses = joint_losses(teacher, points, &sets, &scoring)?;
    let baseline =
        |((name, _, removed_parameters), joint_loss)| Baseline { name, joint_loss, removed_parameters };
    Ok(all.into_iter().zip(losses).map(baseline).collect())
}
