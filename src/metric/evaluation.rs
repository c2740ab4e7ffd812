//! An evaluation: several models, measured in the same way, and whether its parts fit together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::definition::{Method, Metric};
use super::error::MetricError;
use super::inputs::Texts;
use super::kinds::Need;
use super::outside::Outside;
use crate::backend::Random;
use crate::data::Calibration;
use crate::model::network::Conditioning;
use crate::model::unet::UNet;
use crate::model::vae::Autoencoder;
use crate::model::{ModelError, PictureModel, ScorerKind};
use crate::sample::{NoiseSchedule, Sampler};

/// A model to be measured.
pub struct Candidate<'a> {
    /// Its name in the pipeline; pictures lie in a folder of this name.
    pub name: &'a str,
    /// Loads its U-Net. Only one model is in memory at a time.
    pub load: &'a dyn Fn() -> Result<UNet, ModelError>,
}

/// A scorer, and the metrics that are computed with it.
pub struct Judge<'a> {
    /// Which network it is.
    pub name: &'a str,
    /// What it is.
    pub kind: ScorerKind,
    /// The names of the metrics.
    pub metrics: Vec<&'static str>,
    /// Loads it. Only one scorer is in memory at a time, and no U-Net beside it.
    pub load: &'a dyn Fn() -> Result<PictureModel, ModelError>,
}

/// Real pictures that sets of pictures are compared with instead of the teacher's.
pub struct Reference<'a> {
    /// What they are, such as the name of their folder.
    pub name: &'a str,
    /// Their files.
    pub pictures: &'a [PathBuf],
}

/// Everything that an evaluation needs.
pub struct Evaluation<'a> {
    /// The models, in the order of the pipeline.
    pub models: &'a [Candidate<'a>],
    /// The name of the model that the others are compared with.
    pub teacher: &'a str,
    /// The metrics to measure.
    pub metrics: &'a [&'static dyn Metric],
    /// The noise schedule that the models were trained with.
    pub schedule: &'a NoiseSchedule,
    /// The sampler of the pictures.
    pub sampler: &'a dyn Sampler,
    /// Sampling steps per picture.
    pub steps: usize,
    /// Scale of classifier-free guidance.
    pub guidance_scale: f64,
    /// Channels, height and width of the latents.
    pub latent: [usize; 3],
    /// Decodes the pictures; none are drawn without it.
    pub vae: Option<&'a Autoencoder>,
    /// Compare pictures with texts.
    pub judges: &'a [Judge<'a>],
    /// The prompts of the pictures.
    pub prompts: &'a [String],
    /// Pictures of each prompt, from different noise.
    pub seeds: usize,
    /// The prompts, encoded.
    pub conditioning: &'a Conditioning,
    /// The negative prompt, encoded, once per prompt.
    pub unconditional: Option<&'a Conditioning>,
    /// Captions to choose from, for `attribute-accuracy`; the prompts if empty.
    pub captions: &'a [String],
    /// The words of each attribute, by its name.
    pub attributes: &'a BTreeMap<String, Vec<String>>,
    /// What sets of pictures are compared with; the teacher's pictures without it.
    pub reference: Option<&'a Reference<'a>>,
    /// Whether metrics of sets are measured for fewer pictures than they need.
    pub small_sets: bool,
    /// How large a difference from the teacher should be told from none, by metric.
    pub differences: &'a BTreeMap<String, f64>,
    /// What is written for judges outside, and what they said.
    pub outside: Option<&'a Outside>,
    /// Held-out points.
    pub points: Option<&'a Calibration>,
    /// Samples that go through a U-Net together.
    pub batch: usize,
    /// The random streams of the pictures' noise and of the bootstrap.
    pub random: &'a Random,
}

/// Whether the name of a model can name the folder of its pictures.
pub fn names_a_folder(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(fits)
}

impl Evaluation<'_> {
    /// The number of pictures of all models together.
    pub(super) fn pictures(&self) -> u64 {
        (self.models.len() * self.seeds * self.prompts.len()) as u64
    }

    /// The captions that a scorer chooses from.
    pub(super) fn captions(&self) -> &[String] {
        if self.captions.is_empty() { self.prompts } else { self.captions }
    }

    /// Fails if a metric lacks an input, if there are too few pictures, or cannot judge the texts, or if a model's name cannot name a folder.
    pub fn check(&self) -> Result<(), MetricError> {
        for metric in self.metrics {
            for &need in metric.needs() {
                let there = match need {
                    Need::Pictures => self.vae.is_some() && !self.prompts.is_empty(),
                    Need::Scorer => self.judges.iter().any(|judge| judge.metrics.contains(&metric.name())),
                    Need::Seeds => self.seeds > 1,
                    Need::Points => self.points.is_some(),
                    Need::Attributes => !self.attributes.is_empty(),
                };
                if !there {
                    return Err(MetricError::Needs { metric: metric.name(), need });
                }
            }
        }
        for judge in self.judges {
            let asked = self.metrics.iter().filter(|metric| judge.metrics.contains(&metric.name()));
            if let Some(metric) = asked.clone().find(|metric| !metric.scorers().contains(&judge.kind)) {
                let (metric, wanted, parameter) = (metric.name(), metric.scorers(), judge.name.to_owned());
                return Err(MetricError::ScorerKind { metric, wanted, parameter, found: judge.kind });
            }
        }
        let sizes = [
            Some((self.prompts.len() * self.seeds, "of each model")),
            self.reference.map(|reference| (reference.pictures.len(), "of the reference")),
        ];
        for (found, of) in sizes.into_iter().flatten().filter(|_| !self.small_sets) {
            self.metrics.iter().try_for_each(|metric| too_few(*metric, found, of))?;
        }
        let texts = Texts { prompts: self.prompts, attributes: self.attributes };
        self.metrics.iter().try_for_each(|metric| metric.check(texts))?;
        match self.models.iter().find(|model| !names_a_folder(model.name)) {
            Some(model) => Err(MetricError::Name { name: model.name.to_owned() }),
            None => Ok(()),
        }
    }

    /// The name of the reference, if a metric of sets is measured.
    pub(super) fn reference_name(&self) -> Option<String> {
        let of_set = |metric: &&'static dyn Metric| matches!(metric.method(), Method::Set(_));
        self.metrics.iter().any(of_set).then(|| match self.reference {
            Some(reference) => format!("{} pictures in {}", reference.pictures.len(), reference.name),
            None => format!("the pictures of {}", self.teacher),
        })
    }

    /// Whether some metric requires this input.
    pub(super) fn needs(&self, need: Need) -> bool {
        self.metrics.iter().any(|metric| metric.needs().contains(&need))
    }

    /// The place of the teacher among the models.
    pub(super) fn teacher_index(&self) -> Result<usize, MetricError> {
        let found = self.models.iter().position(|model| model.name == self.teacher);
        found.ok_or_else(|| MetricError::NoTeacher { name: self.teacher.to_owned() })
    }
}

/// Fails if a metric needs more pictures. `of` says whose they are.
pub fn too_few(metric: &dyn Metric, found: usize, of: &'static str) -> Result<(), MetricError> {
    let needed = metric.least_pictures();
    match found < needed {
        true => Err(MetricError::TooFew { metric: metric.name(), found, of, needed }),
        false => Ok(()),
    }
}
