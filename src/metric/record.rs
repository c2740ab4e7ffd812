//! The files of an evaluation: `metrics.json`, `.timings.json` and `values.json`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::MetricError;
use super::kinds::{Better, Statistic};
use crate::base::{FileError, files, sealed};

/// The version of the three files.
const FORMAT: u32 = 1;

pub(super) const METRICS_FILE: &str = "metrics.json";
pub(super) const VALUES_FILE: &str = "values.json";

/// Time and memory, which differ from run to run. The file is hidden because the cache does not digest hidden files. So it
/// carries a checksum of its own.
pub const TIMINGS_FILE: &str = ".timings.json";

/// `metrics.json`, and `.timings.json` for the metrics that differ from run to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Version of the file.
    pub format: u32,
    /// The model that the others are compared with.
    pub teacher: String,
    /// Number of prompts.
    pub prompts: usize,
    /// Pictures of each prompt.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub seeds: usize,
    /// Where the prompts are from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts_from: Option<PromptsRecord>,
    /// Which scorer each metric of pictures was computed with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scorers: BTreeMap<String, String>,
    /// What metrics of sets of pictures compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The models, in the order of the pipeline.
    pub models: Vec<ModelMetrics>,
    /// The joint output losses of the selection and of other selections of the same ratio.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub baselines: Vec<Baseline>,
}

/// Where the prompts are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptsRecord {
    /// The published set, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// The digest of all prompts of the set, or of the prompts that were drawn of a file.
    pub digest: String,
    /// Whether the digest is the one that it had to be.
    pub pinned: bool,
}

/// One model's measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelMetrics {
    /// The model's name in the pipeline.
    pub model: String,
    /// By metric.
    pub metrics: BTreeMap<String, Measurement>,
    /// Why a metric could not be measured on this machine or device, by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unavailable: BTreeMap<String, String>,
}

/// One metric of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The statistic over all values.
    pub value: f64,
    /// Which statistic.
    pub statistic: Statistic,
    /// How many values; how many pictures for a metric of sets of pictures.
    pub count: usize,
    /// Lower end of the 95 % bootstrap interval; absent for a single value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Its upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Unit of the value; empty for a bare number.
    pub unit: String,
    /// Which direction is good.
    pub better: Better,
    /// Percentage of the teacher's value; absent for the teacher itself and where its value is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_teacher: Option<f64>,
    /// Lower end of its interval, from resamples paired by prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_teacher_low: Option<f64>,
    /// Its upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_teacher_high: Option<f64>,
    /// The comparison with the teacher, prompt by prompt; absent for the teacher and for metrics without prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paired: Option<Paired>,
    /// The teacher's value with shuffled captions: what good pictures of something else get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// The value of pictures of noise: what pictures of nothing get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
    /// Retained quality: the percentage that is left of the teacher's distance from the better of the two floors. Absent
    /// where the teacher is not clearly better than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained: Option<Estimate>,
}

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// The lower end; absent for fewer than two prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// The upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// A model compared with the teacher on the same prompts and the same noise. The prompt is the unit: the values of
/// several seeds are averaged first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// The mean of the model's values minus the teacher's, with its bootstrap interval.
    pub difference: Estimate,
    /// The percentage of prompts on which the model is better, an equal value counting half, with its Wilson interval.
    pub wins: Estimate,
    /// The standard deviation of the differences; absent for a single prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// How large a difference should be told from none: as asked for, or 1 % of the teacher's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<f64>,
}

impl Paired {
    /// The number of prompts with which the interval of the difference would end `difference` from its middle; at least the
    /// two that a deviation takes.
    pub fn prompts_for(&self, difference: f64) -> Option<f64> {
        let needed = (Z * self.deviation? / difference).powi(2).ceil().max(2.0);
        (needed.is_finite() && difference > 0.0).then_some(needed)
    }

    /// The number of prompts for the difference that is wanted. None if all differences are equal, which says nothing of
    /// other prompts.
    pub fn prompts_needed(&self) -> Option<f64> {
        self.deviation.filter(|deviation| *deviation > 0.0)?;
        self.prompts_for(self.wanted?)
    }
}

/// The 97.5th percentile of the standard normal distribution.
pub(super) const Z: f64 = 1.959_963_984_540_054;

/// The name of the selection itself among the [`Baseline`]s.
pub const SELECTED: &str = "selected";

/// A set of units that was removed at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Its name: [`SELECTED`], or a baseline's such as `greedy` or `random-3`.
    pub name: String,
    /// The measured joint output loss.
    pub joint_loss: f64,
    /// The number of parameters removed.
    pub removed_parameters: u64,
}

/// `values.json`: every single value behind [`Metrics`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// Version of the file.
    pub format: u32,
    /// The prompts, in the order of the values and of the pictures.
    pub prompts: Vec<String>,
    /// The models, in the order of the pipeline.
    pub models: Vec<ModelValues>,
}

/// One model's values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelValues {
    /// The model's name in the pipeline.
    pub model: String,
    /// By metric: one value per prompt, the mean over its seeds, except `output-loss`, which has one per held-out point, and
    /// metrics of sets of pictures and of sizes, which have one.
    pub values: BTreeMap<String, Vec<f64>>,
}

fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(seeds: &usize) -> bool {
    *seeds == 1
}

impl Metrics {
    /// A file without measurements.
    pub fn new(teacher: &str, prompts: usize, seeds: usize) -> Self {
        let (models, baselines, scorers) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (format, teacher) = (FORMAT, teacher.to_owned());
        let (prompts_from, reference) = (None, None);
        Self { format, teacher, prompts, seeds, prompts_from, scorers, reference, models, baselines }
    }

    /// Reads `metrics.json` from an artefact's folder.
    pub fn open(folder: &Path) -> Result<Self, MetricError> {
        read(&folder.join(METRICS_FILE), |metrics: &Self| metrics.format)
    }

    /// Reads `.timings.json`, if it exists.
    pub fn open_timings(folder: &Path) -> Result<Option<Self>, MetricError> {
        let path = folder.join(TIMINGS_FILE);
        match sealed::read_of(&path, FORMAT, |metrics: &Self| metrics.format) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(read.map_err(FileError::at(&path))?)),
        }
    }

    /// Writes `.timings.json`. The digest of an artefact leaves it out, so it is sealed.
    pub(super) fn write_timings(&self, folder: &Path) -> Result<(), MetricError> {
        let path = folder.join(TIMINGS_FILE);
        Ok(sealed::write(&path, self).map_err(FileError::at(&path))?)
    }

    /// The measurement of a metric for a model.
    pub fn get(&self, model: &str, metric: &str) -> Option<&Measurement> {
        self.models.iter().find(|one| one.model == model)?.metrics.get(metric)
    }
}

impl Values {
    /// Reads `values.json` from an artefact's folder.
    pub fn open(folder: &Path) -> Result<Self, MetricError> {
        read(&folder.join(VALUES_FILE), |values: &Self| values.format)
    }

    /// A file without values.
    pub fn new(prompts: &[String]) -> Self {
        Self { format: FORMAT, prompts: prompts.to_vec(), models: Vec::new() }
    }
}

/// Reads one of the files.
fn read<T: DeserializeOwned>(path: &Path, format_of: impl Fn(&T) -> u32) -> Result<T, MetricError> {
    Ok(files::read_json_of(path, FORMAT, format_of).map_err(FileError::at(path))?)
}

/// Writes one of the files.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<(), MetricError> {
    Ok(files::write_json(path, value).map_err(FileError::at(path))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_values_are_left_out_of_the_file() -> serde_json::Result<()> {
        let measurement = Measurement {
            value: 42.0,
            statistic: Statistic::Mean,
            count: 1,
            low: None,
            high: None,
            unit: "parameters".to_owned(),
            better: Better::Lower,
            of_teacher: Some(50.0),
            of_teacher_low: None,
            of_teacher_high: None,
            paired: None,
            floor: None,
            noise: None,
            retained: None,
        };
        let metrics = BTreeMap::from([("parameters".to_owned(), measurement)]);
        let mut file = Metrics::new("teacher", 3, 1);
        file.models.push(ModelMetrics { model: "pruned".to_owned(), metrics, unavailable: BTreeMap::new() });
        let text = serde_json::to_string(&file)?;
        assert_eq!(
            text,
            r#"{"format":1,"teacher":"teacher","prompts":3,"models":[{"model":"pruned","metrics":{"parameters":{"value":42.0,"statistic":"mean","count":1,"unit":"parameters","better":"lower","of_teacher":50.0}}}]}"#
        );
        assert_eq!(serde_json::from_str::<Metrics>(&text)?, file);
        assert_eq!(file.get("pruned", "parameters").map(|found| found.value), Some(42.0));
        assert!(file.get("pruned", "macs").is_none());
        Ok(())
    }
}
