//! A small U-Net to score, and how one criterion scores it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::small_unets::{self, teacher};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use laptop_diff::backend::Random;
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Interrupt, Progress};
use laptop_diff::data::Calibration;
use laptop_diff::model::files::weights::Weights;
use laptop_diff::model::network::Unit;
use laptop_diff::model::unet::{UNet, UNetConfig};
use laptop_diff::sample::NoiseSchedule;
use laptop_diff::score::{Criterion, Limits, ScoringContext, Teacher, criterion, score};

pub(super) const CPU: Device = Device::Cpu;

/// A small U-Net with its weights on disk.
pub(super) struct Model {
    _folder: tempfile::TempDir,
    pub(super) config: UNetConfig,
    pub(super) unet: UNet,
    pub(super) weights: Weights,
    pub(super) random: Random,
}

impl Model {
    pub(super) fn new(config: &serde_json::Value, seed: u64) -> miette::Result<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        small_unets::save(config, seed, folder.path())?;
        let weights = Weights::open(folder.path())?;
        let config = UNetConfig::parse(&config.to_string())?;
        let unet = UNet::new(config.clone(), weights.builder(DType::F32, &CPU)).expect("the weights fit");
        Ok(Self { _folder: folder, config, unet, weights, random: Random::new(1, "scores") })
    }

    pub(super) fn teacher<'a>(&'a self, points: &'a Calibration, schedule: &'a NoiseSchedule) -> Teacher<'a> {
        teacher(&self.unet, &self.weights, points, schedule, &self.random)
    }

    /// The weights as doubles, changed by `change`, in a U-Net that computes in double precision.
    pub(super) fn in_doubles(&self, change: impl Fn(&str, Tensor) -> candle_core::Result<Tensor>) -> UNet {
        let inventory = self.config.inventory();
        let tensors = inventory.tensors().map(|entry| {
            let tensor = self.weights.tensor(&entry.name, DType::F64, &CPU).expect("it was saved");
            (entry.name.clone(), change(&entry.name, tensor).expect("a change"))
        });
        UNet::new(self.config.clone(), VarBuilder::from_tensors(tensors.collect(), DType::F64, &CPU))
            .expect("the weights fit")
    }
}

/// A score by one criterion, from a folder of its own.
pub(super) fn alone(teacher: &Teacher<'_>, name: &str, batch: usize) -> miette::Result<Vec<f64>> {
    alone_by(teacher, criterion(name)?, batch)
}

/// The same by a criterion with parameters.
pub(super) fn alone_by(
    teacher: &Teacher<'_>,
    criterion: Arc<dyn Criterion>,
    batch: usize,
) -> miette::Result<Vec<f64>> {
    let name = criterion.info().name;
    let folder = tempfile::tempdir().expect("a folder");
    let interrupt = Interrupt::default();
    let scores = score(teacher, &[criterion], &context(batch, folder.path(), &Silent, &interrupt))?;
    Ok(scores.units.iter().map(|unit| unit.scores[name]).collect())
}

pub(super) fn context<'a>(
    points: usize,
    checkpoint: &'a Path,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
) -> ScoringContext<'a> {
    ScoringContext { limits: Limits { points, variants: 7 }, weights: None, checkpoint, progress, interrupt }
}

/// One row of doubles per point.
pub(super) fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    let rows = tensor.to_dtype(DType::F64).and_then(|tensor| tensor.flatten_from(1)?.to_vec2());
    rows.expect("a tensor with points")
}

pub(super) fn mean_square(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64
}

pub(super) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

pub(super) fn without(unet: &UNet, unit: &Unit) -> UNet {
    unet.prune(&BTreeSet::from([unit.id.clone()])).expect("a known unit")
}
