//! What needs scorers: each looks at the pictures of all models, the teacher's first, and what it makes of them is kept.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;

use super::definition::{Method, Metric};
use super::error::MetricError;
use super::evaluation::{Evaluation, Judge};
use super::floor::derangement;
use super::found::{Drawn, Found, OfPart, Watch};
use super::inputs::SetInputs;
use super::judging::{self, EncodedTexts, Judging};
use super::kinds::OfSet;
use super::part::{Keep, Part};
use crate::base::Progress;

/// Metrics of pictures that one scorer computes.
type Metrics = Vec<&'static dyn Metric>;

/// Values of a metric that compares pictures with texts, `None` for any other. `order` gives the caption of each picture;
/// a network that scores pictures itself has read it beside the picture's own.
fn compared(
    metric: &'static dyn Metric,
    (judging, texts): (&Judging<'_>, Option<&EncodedTexts>),
    (model, features): (&str, &[Tensor]),
    (order, shuffled): (&[u32], bool),
) -> Result<Option<Vec<f64>>, MetricError> {
    Ok(match (metric.method(), texts) {
        (Method::Features(_), Some(texts)) => Some(judging.compare(metric, model, texts, features, order)?),
        (Method::Scores, _) => Some(judging::scores(metric, model, features, shuffled)?),
        _ => None,
    })
}

impl Evaluation<'_> {
    /// Measures the metrics of one scorer.
    pub(super) fn judge<E: From<MetricError>>(
        &self,
        (scorer, judge): (usize, &Judge<'_>),
        (teacher, drawn): (usize, &Drawn),
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
        let mut reference = self.of_real(scorer, (&metrics, &judging), keep, progress)?;
        progress.length(self.pictures(), "scored pictures");
        let order = [teacher].into_iter().chain((0..self.models.len()).filter(|&model| model != teacher));
        for (place, model) in order.enumerate() {
            let mut features: Vec<Tensor> = Vec::new();
            for (seed, gallery) in drawn.galleries[model].iter().enumerate() {
                let before = ((place * self.seeds + seed) * self.prompts.len()) as u64;
                let watch = OfPart { progress, before };
                let fill = |folder: &Path, checkpoint: &Path| {
                    let name = self.models[model].name;
                    judging.encode_gallery(name, gallery, (folder, checkpoint), &watch)
                };
                features.push(judging::features(&keep(Part::Features { scorer, model, seed }, &fill)?)?);
                progress.position(before + self.prompts.len() as u64);
            }
            if model == teacher {
                self.of_shuffled(&metrics, (&judging, texts.as_ref()), (model, &features), found)?;
            }
            self.of_prompts(&metrics, model, (&judging, texts.as_ref()), &features, found)?;
            let real = self.reference.is_some();
            let sets = self.of_sets(&metrics, model, &features, (reference.as_deref(), real))?;
            found.sets[model].extend(sets);
            // The teacher comes first.
            reference.get_or_insert(features);
        }
        let has_floor = metrics.iter().any(|metric| metric.method().has_floor());
        if let Some(noise) = drawn.noise.as_ref().filter(|_| has_floor) {
            let encode = |folder: &Path, checkpoint: &Path| {
                judging.encode_noise(noise, (folder, checkpoint), progress)
            };
            let features = [judging::features(&keep(Part::NoiseFeatures { scorer }, &encode)?)?];
            self.of_noise(&metrics, (&judging, texts.as_ref()), &features, found)?;
        }
        Ok(())
    }

    /// What the scorer makes of the real pictures, if there are any and a metric compares with them.
    fn of_real<E: From<MetricError>>(
        &self,
        scorer: usize,
        (metrics, judging): (&Metrics, &Judging<'_>),
        keep: &Keep<'_, E>,
        progress: &dyn Progress,
    ) -> Result<Option<Vec<Tensor>>, E> {
        let of_sets = |metric: &&'static dyn Metric| matches!(metric.method(), Method::Set(_));
        let Some(real) = self.reference.filter(|_| metrics.iter().any(of_sets)) else { return Ok(None) };
        let encode = |folder: &Path, checkpoint: &Path| {
            judging.encode_reference(real.pictures, (folder, checkpoint), progress)
        };
        Ok(Some(vec![judging::features(&keep(Part::Reference { scorer }, &encode)?)?]))
    }

    /// Measures the pictures of noise.
    fn of_noise(
        &self,
        metrics: &Metrics,
        judge: (&Judging<'_>, Option<&EncodedTexts>),
        features: &[Tensor],
        found: &mut Found,
    ) -> Result<(), MetricError> {
        let own: Vec<u32> = (0..self.prompts.len() as u32).collect();
        for &metric in metrics {
            let values = compared(metric, judge, ("noise", features), (&own[..], false))?;
            found.floors.noise.extend(values.map(|values| (metric.name(), values)));
        }
        Ok(())
    }

    /// Measures the teacher's pictures with shuffled captions.
    fn of_shuffled(
        &self,
        metrics: &Metrics,
        judge: (&Judging<'_>, Option<&EncodedTexts>),
        (teacher, features): (usize, &[Tensor]),
        found: &mut Found,
    ) -> Result<(), MetricError> {
        let Some(shuffled) = derangement(self.prompts.len()) else { return Ok(()) };
        for &metric in metrics {
            let of = (self.models[teacher].name, features);
            let values = compared(metric, judge, of, (&shuffled[..], true))?;
            found.floors.shuffled.extend(values.map(|values| (metric.name(), values)));
        }
        Ok(())
    }

    /// Measures what has a value per prompt.
    fn of_prompts(
        &self,
        metrics: &Metrics,
        model: usize,
        judge: (&Judging<'_>, Option<&EncodedTexts>),
        features: &[Tensor],
        found: &mut Found,
    ) -> Result<(), MetricError> {
        let name = self.models[model].name;
        let own: Vec<u32> = (0..self.prompts.len() as u32).collect();
        for &metric in metrics {
            let measured = match metric.method() {
                Method::Seeds(_) => Some(judging::over_seeds(metric, name, features)?),
                _ => compared(metric, judge, (name, features), (&own[..], false))?,
            };
            found.models[model].extend(measured.map(|measured| (metric.name(), measured)));
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
