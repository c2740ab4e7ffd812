//! `evaluate`: compares models with their teacher, and a selection with its baselines.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::evaluate_inputs::{Inputs, check_sizes, note_unpinned, real_pictures};
use super::evaluate_measure::Measuring;
use super::evaluate_needs::{Given, memory_of};
use super::evaluate_outside::Judges;
use super::evaluate_settings::Settings;
use super::joint_losses::{joint_losses_of, selection_of_units};
use super::model::Model;
use super::named::Named;
use super::needs::{Needs, Outlook};
use super::points::points;
use super::prompt_source::PromptSource;
use super::resolved_file::path_of;
use super::scorers::{Opened, ScorerSource, Used};
use super::sources::{prompts_file, reference_folder};
use super::{BadValue, Context, Drawing, FileInput, Input, ResolvedFile, Stage, StageError, StageInfo};
use crate::base::bounded::Positive;
use crate::base::names::{self, UnknownName};
use crate::base::{ArtefactKind, Manifest, Real, StageId, Whole};
use crate::data::prompts;
use crate::metric::{self, Candidate, Gate, GateError, Method, Metric, Metrics, Need, Texts, Verdict};
use crate::model::UNetConfig;
use crate::sample;

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
    /// The prompts of the pictures: a text file with one per line, a table, or a block that names a column or a published set.
    prompts: PromptSource,
    /// The number of prompts to draw, from the first of a file. Default 200.
    #[serde(default = "default_pictures")]
    pictures: Whole<1, 1_000_000>,
    /// Pictures of each prompt, from different noise. Their values are averaged, so that the prompt stays the unit of all
    /// intervals. Default 1.
    #[serde(default = "default_seeds")]
    seeds: Whole<1, 1_000>,
    /// The CLIP of the metrics that can use one: a CLIPModel directory or a repository on the hub, as for `load`; or
    /// `{ model: ..., processor: ..., revision: ... }` with tokenizer and preprocessor from another place.
    scorer: Option<ScorerSource>,
    /// Scorers of single metrics, by the metric: `{ pick-score: yuvalkirstain/PickScore_v1, fid: ../scorers/inception }`.
    /// `image-reward`, `fid` and `fd-dinov2` need their own, which is no CLIP.
    #[serde(default)]
    scorers: BTreeMap<String, ScorerSource>,
    /// For `cmmd`, `fd-dinov2` and `fid`: a folder of real pictures to compare with. Default: the teacher's pictures.
    reference: Option<PathBuf>,
    /// Measure `fid` for fewer than 5,000 pictures too. Its values then depend on the number of pictures. Default `false`.
    #[serde(default)]
    small_sets: bool,
    /// For `attribute-accuracy`: a text file with the captions that the scorer chooses from, one per line. Default: the prompts.
    captions: Option<PathBuf>,
    /// For `attribute-accuracy`: the words of each attribute, such as `{ colour: [red, blue], shape: [circle, square] }`.
    #[serde(default)]
    attributes: BTreeMap<String, Vec<String>>,
    /// A stage with held-out calibration points, for `output-loss` and for measuring `selection`.
    points: Option<StageId>,
    /// A stage with a selection: its joint loss and that of its baselines are measured on `points`.
    selection: Option<StageId>,
    /// Conditions on the results, such as `retrained.pick-score.retained >= 0.96` or `retrained.parameters <= 1.3e9`:
    /// MODEL.METRIC, then `.of-teacher`, `.difference`, `.wins` or `.retained` for what is not the value itself, then `.low` or
    /// `.high` for an end of its interval. If one is not met, the run ends with exit code 7 after everything is written.
    #[serde(default)]
    gates: Vec<String>,
    /// How large a difference from the teacher should be told from none, by the metric: `{ pick-score: 0.1 }`. The results say
    /// how many prompts that takes. Default 1 % of the teacher's value.
    #[serde(default)]
    differences: BTreeMap<String, Real<Positive>>,
    /// For judges that run outside, such as GenEval: the pictures are written once more as `pictures/MODEL/00000/samples/0000.png`
    /// with `metadata.jsonl`. Their scores by name, once there are any: `{ geneval: results.jsonl }`, a JSON object per line with
    /// `model`, `prompt` (its number from 0) and `score`, or what GenEval writes. `{}` for the pictures alone.
    outside: Option<Judges>,
    /// Other ways to draw, by name, in which the metrics of pictures are measured too: `{ cfg3: { guidance-scale: 3 } }`. Each
    /// adds a column per model, `retrained.cfg3`, which is compared with the teacher in the same setting.
    #[serde(default)]
    settings: Settings,
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

fn default_seeds() -> Whole<1, 1_000> {
    Whole::new(1)
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "evaluate",
    // 2: comparisons by prompt, the floor and retained quality. 3: features of every scorer are kept in one form. 4: pictures of
    // noise are a floor too, where prompts are from is recorded, and a Frechet distance is never below 0. 5: latents are kept.
    version: 5,
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
            .field("pictures", self.pictures)
            .field("seeds", self.seeds);
        self.prompts.describe(manifest);
        if let Some(outside) = &self.outside {
            manifest.list("outside", outside.names());
        }
        for (metric, difference) in &self.differences {
            manifest.float(&format!("differences.{metric}"), difference.get());
        }
        self.drawing.describe(manifest, "drawing");
        self.settings.describe(&self.drawing, manifest);
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
        let mut files = vec![self.prompts.input("prompts", self.pictures.get())];
        files.extend(self.used().iter().flat_map(Used::inputs));
        files.extend(self.reference().map(|path| reference_folder("reference", path)));
        files.extend(self.outside.iter().flat_map(Judges::inputs));
        files.extend(self.captions().map(|path| prompts_file("captions", path, |count| count)));
        files
    }

    fn check_files(&self, files: &BTreeMap<String, ResolvedFile>) -> Result<(), StageError> {
        // What is missing is listed before a run.
        let Some(path) = files.get("prompts").and_then(ResolvedFile::path) else { return Ok(()) };
        let prompts = self.prompts.read(path, self.pictures.get())?;
        let texts = Texts { prompts: &prompts, attributes: &self.attributes };
        let metrics = self.metrics().expect("`check` found every metric");
        metrics.iter().try_for_each(|metric| metric.check(texts)).map_err(StageError::input)?;
        if !self.small_sets {
            let reference = self.reference().map(|_| path_of(files, "reference"));
            check_sizes(&metrics, prompts.len() * self.seeds.get(), reference)?;
        }
        if let Some(outside) = &self.outside {
            let path = |name: &str| path_of(files, name).to_owned();
            outside.read(&self.names(), prompts.len(), &path).map_err(StageError::input)?;
        }
        if self.captions().is_some() {
            prompts::read(path_of(files, "captions"))?;
        }
        self.used().iter().try_for_each(|used| used.check_files(files))
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
        self.prompts.check("prompts")?;
        self.outside.iter().try_for_each(Judges::check)?;
        self.settings.check(&self.drawing, &self.names())?;
        let metrics = self.metrics().map_err(|error| BadValue::unknown("metrics", &error))?;
        self.given(metrics).check()?;
        self.check_differences()?;
        for (index, text) in self.gates.iter().enumerate() {
            self.check_gate(&format!("gates.{index}"), text)?;
        }
        self.drawing.check(|field| format!("drawing.{field}"))
    }

    fn check_unet(&self, unet: &UNetConfig) -> Result<(), StageError> {
        Ok(sample::check_inputs(unet)?)
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        memory_of(&self.names(), &self.drawing, self.pictures.get() * self.seeds.get(), outlook)
    }

    fn measures_machine(&self) -> bool {
        self.metrics().is_ok_and(|metrics| metrics.iter().any(|metric| !metric.reproducible()))
    }

    fn add_gate(&mut self, gate: &str) -> Result<(), BadValue> {
        self.check_gate("gates", gate)?;
        self.gates.push(gate.to_owned());
        Ok(())
    }

    fn verdicts(&self, folder: &Path) -> Result<Vec<Verdict>, StageError> {
        if self.gates.is_empty() {
            return Ok(Vec::new());
        }
        let (metrics, timings) = (Metrics::open(folder)?, Metrics::open_timings(folder)?);
        let gates = self.gates.iter().filter_map(|text| self.gate(text).ok());
        Ok(gates.map(|gate| gate.verdict(&metrics, timings.as_ref())).collect())
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        // A scorer that cannot be had, and a selection without a joint loss, fail here, not after an hour of drawing.
        let scorers = self.used().into_iter().map(|used| used.open(context));
        let scorers: Vec<Opened<'_>> = scorers.collect::<Result<_, StageError>>()?;
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
        let inputs = Inputs::read(&self.drawing, teacher, self.texts(context)?, held_out, context)?;
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
        let measuring = self.measuring(context, &scorers)?;
        let open = |judges: &Judges| judges.open(&self.prompts, &inputs.prompts, &self.names(), context);
        let outside = self.outside.as_ref().map(open).transpose()?;
        let mut outcome = measuring.all(&self.drawing, &inputs, &candidates, outside.as_ref())?;
        let from = self.prompts.record(context.file("prompts"), &inputs.prompts)?;
        note_unpinned(&from, context);
        outcome.metrics.prompts_from = Some(from);
        drop(inputs);
        for (name, drawing) in self.settings.drawings(&self.drawing) {
            let inputs = Inputs::read(&drawing, teacher, self.texts(context)?, None, context)?;
            outcome.extend(measuring.in_setting(name, &drawing, &inputs, &candidates)?);
        }
        outcome.metrics.baselines = baselines;
        Ok(outcome.write(context.output)?)
    }
}

impl Evaluate {
    fn open(&self, context: &Context<'_>, name: &str) -> Result<Model, StageError> {
        Model::open(context.input(&format!("models.{name}")))
    }

    /// What is measured in every setting alike.
    fn measuring<'a>(
        &'a self,
        context: &'a Context<'a>,
        scorers: &'a [Opened<'a>],
    ) -> Result<Measuring<'a>, StageError> {
        Ok(Measuring {
            context,
            teacher: &self.teacher,
            metrics: self.metrics().expect("`check` found every metric"),
            seeds: self.seeds.get(),
            scorers,
            attributes: &self.attributes,
            real: self.reference().map(|path| real_pictures(path, context)).transpose()?,
            small_sets: self.small_sets,
            differences: self.differences.iter().map(|(name, value)| (name.clone(), value.get())).collect(),
        })
    }

    /// Fails if a difference is given for what has no value per prompt here.
    fn check_differences(&self) -> Result<(), BadValue> {
        let outside = self.outside.iter().flat_map(Judges::names).cloned();
        let metrics = self.metrics().unwrap_or_default();
        let by_prompt = metrics.iter().filter(|metric| metric.method().is_by_prompt());
        let names: Vec<String> = by_prompt.map(|metric| metric.name().to_owned()).chain(outside).collect();
        match self.differences.keys().find(|name| !names.contains(name)) {
            None => Ok(()),
            Some(name) => {
                let message = format!("`{name}` is not among the metrics that have a value per prompt here");
                Err(BadValue::new("differences", message).help(names::help(name, &names)))
            }
        }
    }

    fn check_gate(&self, parameter: &str, text: &str) -> Result<(), BadValue> {
        let bad = |error: GateError| BadValue::new(parameter, error.to_string()).help(error.help);
        self.gate(text).map(drop).map_err(bad)
    }

    fn gate(&self, text: &str) -> Result<Gate, GateError> {
        let columns = self.settings.columns(&self.names());
        let models: Vec<&str> = columns.iter().map(String::as_str).collect();
        let outside = self.outside.iter().flat_map(Judges::names);
        let metrics: Vec<&str> = self.metrics.iter().chain(outside).map(String::as_str).collect();
        Gate::parse(text, &models, &self.teacher, &metrics)
    }

    /// The prompts that are drawn, and the captions to choose from.
    fn texts(&self, context: &Context<'_>) -> Result<(Vec<String>, Vec<String>), StageError> {
        let captions = self.captions().map(|_| prompts::read(context.file("captions"))).transpose()?;
        let captions = captions.unwrap_or_default();
        Ok((self.prompts.read(context.file("prompts"), self.pictures.get())?, captions))
    }

    /// Whether a metric needs this.
    fn needs(&self, need: Need) -> bool {
        self.metrics().is_ok_and(|metrics| metrics.iter().any(|metric| metric.needs().contains(&need)))
    }

    /// The scorers that are used.
    fn used(&self) -> Vec<Used<'_>> {
        self.given(self.metrics().unwrap_or_default()).used()
    }

    /// What the metrics may need.
    fn given(&self, metrics: Vec<&'static dyn Metric>) -> Given<'_> {
        Given {
            scorer: self.scorer.as_ref(),
            scorers: &self.scorers,
            points: self.points.is_some(),
            attributes: !self.attributes.is_empty(),
            seeds: self.seeds.get(),
            metrics,
        }
    }

    /// The names of the models.
    fn names(&self) -> Vec<&str> {
        self.models.iter().map(|(name, _)| name).collect()
    }

    /// The folder of real pictures, if it is used.
    fn reference(&self) -> Option<&Path> {
        let metrics = self.metrics().unwrap_or_default();
        let used = metrics.iter().any(|metric| matches!(metric.method(), Method::Set(_)));
        self.reference.as_deref().filter(|_| used)
    }

    /// The file of captions, if it is used.
    fn captions(&self) -> Option<&Path> {
        self.captions.as_deref().filter(|_| self.needs(Need::Attributes))
    }

    fn metrics(&self) -> Result<Vec<&'static dyn Metric>, UnknownName> {
        self.metrics.iter().map(|name| metric::find(name)).collect()
    }
}
