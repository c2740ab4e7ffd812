//! What each kept part of an evaluation depends on. Less than the whole evaluation does: another metric draws no picture
//! again.

use super::{Context, Drawing};
use crate::base::Manifest;
use crate::metric::Part;

/// What every part depends on: the program, and how it computes.
const COMMON: [&str; 4] = ["key layout", "stage", "device class", "kernels"];
/// What the noise depends on.
const STREAMS: [&str; 2] = ["seed", "id"];

/// The models and scorers of an evaluation by their places in it.
pub(super) struct Names<'a> {
    /// The models.
    pub(super) models: &'a [&'a str],
    pub(super) teacher: &'a str,
    /// The files of each scorer.
    pub(super) scorers: &'a [Vec<String>],
    /// How pictures are drawn, which a setting changes.
    pub(super) drawing: &'a Drawing,
}

impl Names<'_> {
    /// What a part depends on. Equal parts of different evaluations have equal manifests: names of models and places of
    /// files do not enter.
    pub(super) fn manifest(&self, part: Part, context: &Context<'_>) -> Manifest {
        match part {
            Part::Gallery { model, seed } => self.gallery(model, seed, context),
            Part::Noise => self.noise(context),
            Part::NoiseFeatures { scorer } => {
                let mut manifest = self.noise(context);
                manifest.field("of the part", "features of noise");
                // ImageReward reads the prompts, which are in the manifest already.
                self.scorer(scorer, context, &mut manifest);
                manifest
            }
            Part::Values { model, metric, reads_points } => {
                let drawing = ["drawing.size", "drawing.batch"];
                let mut manifest = context.manifest.part(|name| {
                    COMMON.contains(&name)
                        || drawing.contains(&name)
                        || (name == "input points" && reads_points)
                });
                manifest.field("part", "values").field("metric", metric);
                self.models(model, context, &mut manifest);
                manifest
            }
            Part::Texts { scorer } => {
                let texts = ["file prompts", "file captions"];
                let mut manifest =
                    context.manifest.part(|name| COMMON.contains(&name) || texts.contains(&name));
                manifest.field("part", "texts");
                self.scorer(scorer, context, &mut manifest);
                manifest
            }
            Part::Reference { scorer } => {
                let mut manifest =
                    context.manifest.part(|name| COMMON.contains(&name) || name == "file reference");
                manifest.field("part", "reference");
                self.scorer(scorer, context, &mut manifest);
                manifest
            }
            Part::Features { scorer, model, seed } => {
                let mut manifest = self.gallery(model, seed, context);
                manifest.field("of the part", "features");
                self.scorer(scorer, context, &mut manifest);
                manifest
            }
        }
    }

    fn gallery(&self, model: usize, seed: usize, context: &Context<'_>) -> Manifest {
        let mut manifest = context
            .manifest
            .part(|name| COMMON.contains(&name) || STREAMS.contains(&name) || name == "file prompts");
        self.drawing.describe(&mut manifest, "drawing");
        manifest.field("part", "gallery").field("picture", seed);
        self.models(model, context, &mut manifest);
        manifest
    }

    fn noise(&self, context: &Context<'_>) -> Manifest {
        let mut manifest = context
            .manifest
            .part(|name| COMMON.contains(&name) || STREAMS.contains(&name) || name == "file prompts");
        self.drawing.describe_cropping(&mut manifest, "drawing");
        let teacher = &context.input(&format!("models.{}", self.teacher)).digest;
        manifest.field("part", "noise").input("teacher", teacher);
        manifest
    }

    fn models(&self, model: usize, context: &Context<'_>, manifest: &mut Manifest) {
        let digest = |name: &str| &context.input(&format!("models.{name}")).digest;
        manifest.input("model", digest(self.models[model])).input("teacher", digest(self.teacher));
    }

    fn scorer(&self, scorer: usize, context: &Context<'_>, manifest: &mut Manifest) {
        for (place, file) in self.scorers[scorer].iter().enumerate() {
            let entry = format!("file {file}");
            let contents = context.manifest.entries().find(|(name, _)| *name == entry);
            let (_, contents) = contents.unwrap_or_else(|| panic!("BUG: `{file}` is not in the manifest"));
            manifest.field(&format!("scorer {place}"), contents);
        }
    }
}
