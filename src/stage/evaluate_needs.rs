//! What the metrics of an evaluation need of its parameters, and which scorer serves which metric.

use std::collections::BTreeMap;

use super::needs::{self, Needs, Outlook};
use super::scorers::{ScorerSource, Used};
use super::{BadValue, Drawing, memory};
use crate::metric::{self, Metric, Need};
use crate::model::ScorerKind;
use crate::model::vae::VaeConfig;

/// The parameters that metrics may need.
pub(super) struct Given<'a> {
    pub(super) scorer: Option<&'a ScorerSource>,
    pub(super) scorers: &'a BTreeMap<String, ScorerSource>,
    pub(super) points: bool,
    pub(super) attributes: bool,
    pub(super) seeds: usize,
    pub(super) metrics: Vec<&'static dyn Metric>,
}

impl<'a> Given<'a> {
    /// Fails if a metric lacks what it needs, or if a scorer is given to what uses none.
    pub(super) fn check(&self) -> Result<(), BadValue> {
        for metric in &self.metrics {
            metric.needs().iter().try_for_each(|need| self.check_need(*metric, *need))?;
        }
        for (name, source) in self.scorers {
            let metric = metric::find(name).map_err(|error| BadValue::unknown("scorers", &error))?;
            if !needs_scorer(&metric) {
                return Err(BadValue::new("scorers", format!("`{name}` uses no scorer")));
            }
            source.check(&format!("scorers.{name}"))?;
        }
        self.scorer.iter().try_for_each(|source| source.check("scorer"))
    }

    fn check_need(&self, metric: &'static dyn Metric, need: Need) -> Result<(), BadValue> {
        let name = metric.name();
        let own = format!("scorers.{name}");
        let (parameter, given) = match need {
            // Prompts are always given.
            Need::Pictures => return Ok(()),
            Need::Scorer if uses_clip(metric) => {
                ("scorer", self.scorer.is_some() || self.scorers.contains_key(name))
            }
            Need::Scorer => (own.as_str(), self.scorers.contains_key(name)),
            Need::Seeds if self.seeds < 2 => {
                let message =
                    format!("`{name}` compares the pictures of a prompt, but `seeds` is {}", self.seeds);
                return Err(
                    BadValue::new("seeds", message).help("set it to 2 or more, or leave the metric out")
                );
            }
            Need::Seeds => return Ok(()),
            Need::Points => ("points", self.points),
            Need::Attributes => ("attributes", self.attributes),
        };
        if given {
            return Ok(());
        }
        let message = format!("`{name}` needs `{parameter}`, which is not given");
        let help = format!("add `{parameter}:`, or leave the metric out");
        Err(BadValue::new("metrics", message).help(help))
    }

    /// The scorers that are used: that of most metrics, and those of single metrics.
    pub(super) fn used(&self) -> Vec<Used<'a>> {
        let (own, common): (Vec<_>, Vec<_>) = self
            .metrics
            .iter()
            .filter(|metric| needs_scorer(metric))
            .map(|metric| metric.name())
            .partition(|name| self.scorers.contains_key(*name));
        let common = self.scorer.filter(|_| !common.is_empty()).map(|source| Used {
            name: "scorer".to_owned(),
            source,
            metrics: common,
        });
        let own = own.into_iter().map(|name| Used {
            name: format!("scorers.{name}"),
            source: &self.scorers[name],
            metrics: vec![name],
        });
        common.into_iter().chain(own).collect()
    }
}

/// What drawing pictures with each of some models takes. One model is in memory at a time.
pub(super) fn memory_of(
    names: &[&str],
    drawing: &Drawing,
    pictures: usize,
    outlook: &Outlook<'_>,
) -> Option<Needs> {
    let models =
        names.iter().filter_map(|name| outlook.models.get(format!("models.{name}").as_str()).copied());
    let largest = models.map(|model| (model, drawing.needs(model, pictures, outlook)));
    let (model, needs) = largest.max_by_key(|(_, needs)| needs.memory())?;
    let (height, width) = drawing.latents_of(model);
    let side = model.vae.as_ref().map_or(8, VaeConfig::downscale);
    let points = outlook.rows.get("points").and_then(|points| usize::try_from(points.rows?).ok());
    let data = needs::points(points.unwrap_or(0), [model.unet.in_channels, height, width], &model.unet);
    // Pictures before they are compressed.
    let disk = memory::product(&[names.len(), pictures, 3, height * side, width * side]);
    Some(Needs { data, disk, ..needs })
}

fn needs_scorer(metric: &&'static dyn Metric) -> bool {
    metric.needs().contains(&Need::Scorer)
}

fn uses_clip(metric: &'static dyn Metric) -> bool {
    metric.scorers().contains(&ScorerKind::Clip)
}
