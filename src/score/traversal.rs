//! Walks over all calibration points in pieces that fit into memory, resumable after each.

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

use super::checkpoint::Sums;
use super::walk::{Observer, Variant, walk};
use super::{Gram, ScoreError, Task};
use crate::backend::memory;
use crate::base::{Interrupt, Progress, UnitId};
use crate::data::Calibration;
use crate::model::unet::UNet;

const GRAM: &str = "gram";
const INFLUENCE: &str = "influence";
const WEIGHTED: &str = "weighted";
const WEIGHTS: &str = "weights";
const TASK: &str = "task";
const JOINT: &str = "joint";

/// Numbers in the states of the variants that may share batches: 64 MB in f32, which memory always has.
const TOGETHER: usize = 1 << 24;

/// How much walks at once. It decides about memory and speed; results depend on it by rounding alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calibration points in a batch.
    pub points: usize,
    /// Variants beside the teacher; fewer where memory is short, with the same results.
    pub variants: usize,
}

impl Default for Limits {
    /// A batch large enough to keep two cores or a GPU busy, and as many variants as a small U-Net has.
    fn default() -> Self {
        Self { points: 8, variants: 64 }
    }
}

/// What a long measurement runs with.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// How much at once.
    pub limits: Limits,
    /// A folder that outlives a crash.
    pub checkpoint: &'a Path,
    /// Who listens.
    pub progress: &'a dyn Progress,
    /// Whether to stop.
    pub interrupt: &'a Interrupt,
}

/// What one traversal says about each unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Traversal {
    /// `E mean(d_i d_j)`; its diagonal is the output loss.
    pub gram: Gram,
    /// `1 - E cos` between what stands at a unit's output with and without it.
    pub influence: Vec<f64>,
    /// What needs to know the task, where it was given.
    pub task: Option<TaskEffects>,
}

/// What one traversal says about each unit and the task that the U-Net was trained for.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskEffects {
    /// The output loss with each point's weight, over the sum of the weights.
    pub weighted: Vec<f64>,
    /// How much the task loss grows without the unit; negative where it falls.
    pub growth: Vec<f64>,
}

/// Removes each unit of `unet` alone.
pub fn traverse(
    unet: &UNet,
    points: &Calibration,
    task: Option<&Task<'_>>,
    work: &Work<'_>,
) -> Result<Traversal, ScoreError> {
    let variants: Vec<_> = unet.units().iter().map(Variant::without).collect();
    let units: Vec<_> = unet.units().iter().map(|unit| unit.id.clone()).collect();
    let weighting = task.map(|task| task.weighting);
    let what = format!("{units:?} {weighting:?} {}", work.limits.points);
    let path = Sums::path(work.checkpoint, "traversal", &what);
    let sums = in_batches(points, work, &path, |batch| {
        let mut effects = Effects::new(units.len());
        walk_in_chunks(unet, batch, &variants, work, &mut effects)?;
        let mut sums = vec![(GRAM.to_owned(), effects.gram(batch.len()))];
        if let Some(task) = task {
            sums.extend(effects.on_task(batch, task)?);
        }
        sums.push((INFLUENCE.to_owned(), effects.influence));
        Ok(sums)
    })?;
    let task = task.map(|_| TaskEffects {
        weighted: sums.get(WEIGHTED).iter().map(|sum| sum / sums.get(WEIGHTS)[0]).collect(),
        growth: sums.means(TASK),
    });
    Ok(Traversal { gram: Gram::new(units, sums.means(GRAM)), influence: sums.means(INFLUENCE), task })
}

/// The measured joint loss `E mean((e_R - e)^2)` of each set `R` of units. Fails where one is no finite number.
pub fn joint_losses(
    unet: &UNet,
    points: &Calibration,
    sets: &[BTreeSet<UnitId>],
    work: &Work<'_>,
) -> Result<Vec<f64>, ScoreError> {
    let losses = joint("joint", unet, points, sets, work, |batch, variants| {
        let mut losses = Losses { sums: Vec::new() };
        walk_in_chunks(unet, batch, variants, work, &mut losses)?;
        Ok(losses.sums)
    })?;
    check_finite(sets, losses.iter().copied())?;
    Ok(losses)
}

/// The products `E mean(d_R d_S)` of the effects of each two of several sets of units, row by row; the diagonal holds their
/// joint losses. Fails where one of these is no finite number.
pub fn joint_products(
    unet: &UNet,
    points: &Calibration,
    sets: &[BTreeSet<UnitId>],
    work: &Work<'_>,
) -> Result<Vec<f64>, ScoreError> {
    let products = joint("products", unet, points, sets, work, |batch, variants| {
        let mut effects = Effects::new(sets.len());
        walk_in_chunks(unet, batch, variants, work, &mut effects)?;
        Ok(effects.gram(batch.len()))
    })?;
    check_finite(sets, products.iter().step_by(sets.len() + 1).copied())?;
    Ok(products)
}

/// The means over all points of what `measure` sums over a batch of them, without each of several sets of units.
fn joint(
    name: &str,
    unet: &UNet,
    points: &Calibration,
    sets: &[BTreeSet<UnitId>],
    work: &Work<'_>,
    measure: impl Fn(&Calibration, &[Variant<'_>]) -> Result<Vec<f64>, ScoreError>,
) -> Result<Vec<f64>, ScoreError> {
    let variants: Vec<_> =
        sets.iter().map(|set| Variant::without_all(unet, set)).collect::<Result<_, _>>()?;
    let path = Sums::path(work.checkpoint, name, &format!("{sets:?} {}", work.limits.points));
    let sums =
        in_batches(points, work, &path, |batch| Ok(vec![(JOINT.to_owned(), measure(batch, &variants)?)]))?;
    Ok(sums.means(JOINT))
}

fn check_finite(sets: &[BTreeSet<UnitId>], losses: impl Iterator<Item = f64>) -> Result<(), ScoreError> {
    match sets.iter().zip(losses).find(|(_, loss)| !loss.is_finite()) {
        Some((set, value)) => Err(ScoreError::JointNotFinite { units: set.len(), value }),
        None => Ok(()),
    }
}

/// Sums `measure` over batches of points, from where the checkpoint stands.
fn in_batches(
    points: &Calibration,
    work: &Work<'_>,
    path: &Path,
    measure: impl Fn(&Calibration) -> Result<Vec<(String, Vec<f64>)>, ScoreError>,
) -> Result<Sums, ScoreError> {
    if points.is_empty() {
        return Err(ScoreError::NoPoints);
    }
    let size = work.limits.points.max(1);
    let batches: Vec<_> =
        (0..points.len()).step_by(size).map(|start| start..points.len().min(start + size)).collect();
    Sums::over(&batches, "points", path, work, |batch| measure(&points.batch(batch)?))
}

/// Walks once for each chunk of variants: as many as are asked for, or as fit. A chunk ends where a batch of variants
/// does, so that memory decides about nothing but time.
fn walk_in_chunks(
    unet: &UNet,
    batch: &Calibration,
    variants: &[Variant<'_>],
    work: &Work<'_>,
    observer: &mut impl Chunked,
) -> Result<(), ScoreError> {
    let (points, _, height, width) = batch.sample.dims4()?;
    let state = (unet.inventory().state_elements(height, width) as usize * points).max(1);
    let together = (TOGETHER / state).clamp(1, work.limits.variants.max(1));
    let bytes = (state * unet.dtype().size_in_bytes()) as u64;
    let fitting = usize::try_from(memory::budget(batch.sample.device()) / bytes).unwrap_or(usize::MAX);
    let batches = work.limits.variants.min(fitting) / together;
    let size = batches.max(1) * together;
    for (number, chunk) in variants.chunks(size).enumerate() {
        observer.begin(number * size);
        walk(unet, batch, chunk, together, work.interrupt, observer)?;
    }
    Ok(())
}

/// An observer that is told where in the list of all variants a chunk begins.
trait Chunked: Observer {
    fn begin(&mut self, _first: usize) {}
}

/// Keeps every unit's effect on a batch, in the host's memory: of a hundred units of SDXL at 8 points, 210 MB.
struct Effects {
    /// The teacher's prediction, [b, c, h, w] in f32.
    prediction: Option<Tensor>,
    /// Per variant, over points and elements.
    differences: Vec<Vec<f32>>,
    /// Per variant, summed over the batch.
    influence: Vec<f64>,
    first: usize,
}

impl Effects {
    fn new(variants: usize) -> Self {
        Self { prediction: None, differences: Vec::new(), influence: vec![0.0; variants], first: 0 }
    }

    /// `mean(d_i d_j)`, summed over the batch.
    fn gram(&self, points: usize) -> Vec<f64> {
        let rows = &self.differences;
        let elements = (rows.first().map_or(0, Vec::len) / points) as f64;
        let lower: Vec<Vec<f64>> = (0..rows.len())
            .into_par_iter()
            .map(|row| rows[..=row].iter().map(|other| dot(&rows[row], other) / elements).collect())
            .collect();
        let at = |row: usize, column: usize| lower[row.max(column)][row.min(column)];
        (0..rows.len()).flat_map(|row| (0..rows.len()).map(move |column| at(row, column))).collect()
    }

    /// Weighted losses, their weights, and by how much the task loss grows, summed over the batch.
    ///
    /// With the teacher's error `r = e - target`, the task loss without a unit is `mean((r + d)^2)`: it grows by
    /// `mean(d^2) + 2 mean(d r)`, which is not the small difference of two large numbers.
    fn on_task(&self, batch: &Calibration, task: &Task<'_>) -> Result<[(String, Vec<f64>); 3], ScoreError> {
        let prediction = self.prediction.as_ref().expect("BUG: the teacher arrives in every walk");
        let error: Vec<f32> = (prediction - task.target(batch)?)?.flatten_all()?.to_vec1()?;
        let weights = task.weights(batch)?;
        let elements = error.len() / batch.len();
        let weighted = |row: &Vec<f32>| {
            let points = row.chunks_exact(elements).zip(&weights);
            points.map(|(point, weight)| weight * dot(point, point) / elements as f64).sum()
        };
        let growth = |row: &Vec<f32>| (dot(row, row) + 2.0 * dot(row, &error)) / elements as f64;
        Ok([
            (WEIGHTED.to_owned(), self.differences.iter().map(weighted).collect()),
            (WEIGHTS.to_owned(), vec![weights.iter().sum()]),
            (TASK.to_owned(), self.differences.iter().map(growth).collect()),
        ])
    }
}

impl Chunked for Effects {
    fn begin(&mut self, first: usize) {
        self.first = first;
    }
}

impl Observer for Effects {
    fn bypassed(&mut self, variant: usize, without: &Tensor, with: &Tensor) -> candle_core::Result<()> {
        self.influence[self.first + variant] += with.dim(0)? as f64 * (1.0 - mean_cosine(without, with)?);
        Ok(())
    }

    fn arrived(&mut self, prediction: &Tensor) -> candle_core::Result<()> {
        self.prediction = Some(prediction.clone());
        Ok(())
    }

    fn finished(&mut self, _variant: usize, difference: &Tensor) -> candle_core::Result<()> {
        self.differences.push(difference.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?);
        Ok(())
    }
}

/// Keeps the loss alone.
struct Losses {
    /// Per variant, `mean(d^2)` summed over the batch.
    sums: Vec<f64>,
}

impl Chunked for Losses {}

impl Observer for Losses {
    fn finished(&mut self, _variant: usize, difference: &Tensor) -> candle_core::Result<()> {
        let points = difference.dim(0)?;
        let difference: Vec<f32> = difference.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        self.sums.push(dot(&difference, &difference) * points as f64 / difference.len() as f64);
        Ok(())
    }
}

/// The mean over positions of the cosine over channels.
fn mean_cosine(one: &Tensor, two: &Tensor) -> candle_core::Result<f64> {
    let channels = if one.rank() == 4 { D::Minus(3) } else { D::Minus1 };
    let (one, two) = (one.to_dtype(DType::F32)?, two.to_dtype(DType::F32)?);
    let dot = |a: &Tensor, b: &Tensor| a.mul(b)?.sum(channels);
    let lengths = dot(&one, &one)?.mul(&dot(&two, &two)?)?.sqrt()?;
    let cosine = dot(&one, &two)?.div(&lengths.maximum(f64::from(f32::MIN_POSITIVE))?)?;
    // Thousands of numbers near one: their sum in f32 would lose what they differ from it by.
    cosine.to_dtype(DType::F64)?.mean_all()?.to_scalar()
}

/// In double precision and in an order that does not depend on threads.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            lanes[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    lanes.iter().sum::<f64>() + rest
}
