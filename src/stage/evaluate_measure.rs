//! Runs an evaluation, each part of which is kept: once as `drawing:` says, and once in each setting.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::DType;

use super::evaluate_inputs::Inputs;
use super::evaluate_parts::Names;
use super::evaluate_settings::at;
use super::scorers::Opened;
use super::{Context, Drawing, StageError};
use crate::metric::{Candidate, Evaluation, Fill, Judge, Metric, Need, Outcome, Outside, Part, Reference};
use crate::model::PictureModel;

/// What is measured in every setting alike.
pub(super) struct Measuring<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) teacher: &'a str,
    pub(super) metrics: Vec<&'static dyn Metric>,
    pub(super) seeds: usize,
    pub(super) scorers: &'a [Opened<'a>],
    pub(super) attributes: &'a BTreeMap<String, Vec<String>>,
    /// The folder of real pictures, as written, and its pictures.
    pub(super) real: Option<(String, Vec<PathBuf>)>,
    pub(super) small_sets: bool,
    /// How large a difference should be told from none, by metric.
    pub(super) differences: BTreeMap<String, f64>,
}

impl Measuring<'_> {
    /// Everything, as `drawing:` says.
    pub(super) fn all(
        &self,
        drawing: &Drawing,
        inputs: &Inputs,
        candidates: &[Candidate<'_>],
        outside: Option<&Outside>,
    ) -> Result<Outcome, StageError> {
        let models: Vec<&str> = candidates.iter().map(|model| model.name).collect();
        self.run(drawing, inputs, (candidates, &models), (self.teacher, &self.metrics, outside))
    }

    /// The metrics of pictures in a setting. Models have its name behind theirs.
    pub(super) fn in_setting(
        &self,
        setting: &str,
        drawing: &Drawing,
        inputs: &Inputs,
        candidates: &[Candidate<'_>],
    ) -> Result<Outcome, StageError> {
        let models: Vec<&str> = candidates.iter().map(|model| model.name).collect();
        let names: Vec<String> = models.iter().map(|model| at(model, setting)).collect();
        let named = candidates.iter().zip(&names);
        let candidates: Vec<Candidate<'_>> =
            named.map(|(model, name)| Candidate { name, load: model.load }).collect();
        let of_pictures = |metric: &&'static dyn Metric| metric.needs().contains(&Need::Pictures);
        let metrics: Vec<&'static dyn Metric> = self.metrics.iter().copied().filter(of_pictures).collect();
        let teacher = at(self.teacher, setting);
        self.run(drawing, inputs, (&candidates, &models), (&teacher, &metrics, None))
    }

    /// `models` are the names of the candidates in the pipeline.
    fn run(
        &self,
        drawing: &Drawing,
        inputs: &Inputs,
        (candidates, models): (&[Candidate<'_>], &[&str]),
        (teacher, metrics, outside): (&str, &[&'static dyn Metric], Option<&Outside>),
    ) -> Result<Outcome, StageError> {
        let context = self.context;
        let load = |folders| move || PictureModel::load(folders, DType::F32, context.device);
        let loaders: Vec<_> = self.scorers.iter().map(|(_, folders, _)| load(folders)).collect();
        let judges = self.scorers.iter().zip(&loaders);
        let judges: Vec<Judge<'_>> = judges.map(|((used, _, known), load)| used.judge(known, load)).collect();
        let files: Vec<Vec<String>> = self.scorers.iter().map(|(used, ..)| used.files()).collect();
        let names = Names { models, teacher: self.teacher, scorers: &files, drawing };
        let keep = |part: Part, fill: &Fill<'_>| {
            let manifest = names.manifest(part, context);
            context.intermediates.intermediate(&manifest, &|folder, checkpoint| Ok(fill(folder, checkpoint)?))
        };
        let real = self.real.as_ref();
        let reference = real.map(|(name, pictures)| Reference { name, pictures });
        let evaluation = Evaluation {
            models: candidates,
            teacher,
            metrics,
            schedule: &inputs.schedule,
            sampler: drawing.sampler(),
            steps: drawing.steps.get(),
            guidance_scale: drawing.guidance_scale.get(),
            latent: inputs.latent,
            vae: Some(&inputs.vae),
            judges: &judges,
            prompts: &inputs.prompts,
            seeds: self.seeds,
            conditioning: &inputs.conditioning,
            unconditional: Some(&inputs.unconditional),
            captions: &inputs.captions,
            attributes: self.attributes,
            reference: reference.as_ref(),
            outside,
            small_sets: self.small_sets,
            differences: &self.differences,
            points: inputs.points.as_ref(),
            batch: drawing.batch.get(),
            random: &context.random,
        };
        evaluation.run(context.output, &keep, context.progress, context.interrupt)
    }
}
