//! What needs scorers: each looks at the pictures of all models, the teacher's first, and what it makes of them is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::definition::{Method, Metric};
use super::error::MetricError;
use super::evaluation::{Evaluation, Judge};
use super::floor::derangement;
use super::found::{Found, OfPart, Watch};
use super::inputs::SetInputs;
use super::judging::{self, EncodedTexts, Judging};
use super::kinds::OfSet;
use super::part::{Keep, Part};

/// Metrics of pictures that one scorer computes.
type Metrics = Vec<&'static dyn Metric>;

impl Evaluation<'_> {
    /// Measures the metrics of one scorer.
    pub(super) fn judge<E: From<MetricError>>(
        &self,
        (scorer, judge): (usize, &Judge<'_>),
        (teacher, galleries): (usize, &[Vec<PathBuf>]),
        keep: &Keep<'_, E>,
        Watch { progress, interrupt }: Watch<'_>,
        found: &mut Found,
    ) -> Result<(), E> {
        let asked = |metric: &&&'static dyn Metric| judge.metrics.contains(&metric.name());
        let metrics: Metrics = self.metrics.iter().filter(asked).copied().collect();
        if metrics.is_empty() {
            return Ok(());
        }
        let judging = Judging::new(self, judge, interrupt);
        let compares = |metric: &&'static dyn Metric| matches!(metric.method(), Method::Features(_));
        let mut texts = None;
        if metrics.iter().any(compares) {
            let encode = |folder: &Path, _: &Path| judging.encode_texts(folder, progress);
            texts = Some(EncodedTexts::read(&keep(Part::Texts { scorer }, &encode)?)?);
        }
        let of_sets = |metric: &&'static dyn Metric| matches!(metric.method(), Method::Set(_));
        let mut reference = None;
        if let Some(real) = self.reference.filter(|_| metrics.iter().any(of_sets)) {
            let encode = |folder: &Path, checkpoint: &Path| {
                judging.encode_reference(real.pictures, (folder, checkpoint), progress)
            };
            reference = Some(vec![judging::features(&keep(Part::Reference { scorer }, &encode)?)?]);
        }
        progress.length(self.pictures(), "scored pictures");
        let order = [teacher].into_iter().chain((0..self.models.len()).filter(|&model| model != teacher));
        for (place, model) in order.enumerate() {
            let mut features: Vec<Tensor> = Vec::new();
            for (seed, gallery) in galleries[model].iter().enumerate() {
                let before = ((place * self.seeds + seed) * self.prompts.len()) as u64;
                let watch = OfPart { progress, before };
                let fill = |folder: &Path, checkpoint: &Path| {
                    let name = self.models[model].name;
                    judging.encode_gallery(name, gallery, (folder, checkpoint), &watch)
                };
                features.push(judging::features(&keep(Part::Features { scorer, model, seed }, &fill)?)?);
                progress.position(before + self.prompts.len() as u64);
            }
            self.of_prompts(&metrics, (model, teacher), (&judging, texts.as_ref()), &features, found)?;
            let real = self.reference.is_some();
            let sets = self.of_sets(&metrics, model, &features, (reference.as_deref(), real))?;
            found.sets[model].extend(sets);
            // The teacher comes first.
            reference.get_or_insert(features);
        }
        Ok(())
    }

    /// Measures what has a value per prompt; of the teacher with shuffled captions too.
    fn of_prompts(
        &self,
        metrics: &Metrics,
        (model, teacher): (usize, usize),
        (judging, texts): (&Judging<'_>, Option<&EncodedTexts>),
        features: &[Tensor],
        found: &mut Found,
    ) -> Result<(), MetricError> {
        let name = self.models[model].name;
        let own: Vec<u32> = (0..self.prompts.len() as u32).collect();
        let shuffled = derangement(own.len()).filter(|_| model == teacher);
        for &metric in metrics {
            let (measured, floor) = match (metric.method(), texts) {
                (Method::Features(_), Some(texts)) => {
                    let compare = |order: &[u32]| judging.compare(metric, name, texts, features, order);
                    (compare(&own)?, shuffled.as_deref().map(compare).transpose()?)
                }
                (Method::Scores, _) => {
                    let scores = |shuffled| judging::scores(metric, name, features, shuffled);
                    (scores(false)?, shuffled.as_ref().map(|_| scores(true)).transpose()?)
                }
                (Method::Seeds(_), _) => (judging::over_seeds(metric, name, features)?, None),
                _ => continue,
            };
            found.models[model].insert(metric.name(), measured);
            found.floor.extend(floor.map(|floor| (metric.name(), floor)));
        }
        Ok(())
    }

    /// Measures what has a value for all pictures. The teacher is at no distance from its own pictures.
    fn of_sets(
        &self,
        metrics: &Metrics,
        model: usize,
        features: &[Tensor],
        (reference, real): (Option<&[Tensor]>, bool),
    ) -> Result<BTreeMap<&'static str, OfSet>, MetricError> {
        let mut found = BTreeMap::new();
        for &metric in metrics.iter().filter(|metric| matches!(metric.method(), Method::Set(_))) {
            let of = match reference {
                None => Some(OfSet { value: 0.0, error: None }),
                Some(reference) => {
                    let inputs = SetInputs { pictures: features, reference, paired: !real };
                    judging::of_set(metric, self.models[model].name, &inputs)?
                }
            };
            found.extend(of.map(|of| (metric.name(), of)));
        }
        Ok(found)
    }
}
