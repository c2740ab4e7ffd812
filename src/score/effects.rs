//! What a traversal records of each variant: the whole effect on the prediction, or its loss alone.

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

use super::batches::Chunked;
use super::error::ScoreError;
use super::walk::Observer;
use crate::data::Calibration;
use crate::sample::NoiseSchedule;

/// Keeps every unit's effect on a batch in the host's memory: 210 MB for a hundred units of SDXL at 8 points.
pub(super) struct Effects {
    /// The teacher's prediction, [b, c, h, w] in f32.
    prediction: Option<Tensor>,
    /// Per variant, over points and elements.
    differences: Vec<Vec<f32>>,
    /// Per variant, `1 - cos` at its first removed unit, summed over the batch.
    pub(super) influence: Vec<f64>,
    first: usize,
}

/// The effects on the task loss over a batch.
pub(super) struct OnTask {
    /// `mean(d^2)` of each variant and point: a row of points per variant.
    pub(super) losses: Vec<f64>,
    /// Per variant, the growth of the task loss, summed over the batch.
    pub(super) growth: Vec<f64>,
}

impl Effects {
    pub(super) fn new(variants: usize) -> Self {
        Self { prediction: None, differences: Vec::new(), influence: vec![0.0; variants], first: 0 }
    }

    /// `mean(d_i d_j)`, summed over the batch; with `weights`, each point by its own.
    pub(super) fn gram(&self, points: usize, weights: Option<&[f64]>) -> Vec<f64> {
        let rows = &self.differences;
        let elements = rows.first().map_or(0, Vec::len) / points;
        let product = |one: &[f32], other: &[f32]| weighted(one, other, elements, weights) / elements as f64;
        let lower: Vec<Vec<f64>> = (0..rows.len())
            .into_par_iter()
            .map(|row| rows[..=row].iter().map(|other| product(&rows[row], other)).collect())
            .collect();
        let at = |row: usize, column: usize| lower[row.max(column)][row.min(column)];
        (0..rows.len()).flat_map(|row| (0..rows.len()).map(move |column| at(row, column))).collect()
    }

    /// The losses point by point, and the growth of the task loss.
    ///
    /// With the teacher's error `r = e - target`, the task loss without a unit is `mean((r + d)^2)`: it grows by
    /// `mean(d^2) + 2 mean(d r)`, which is not the small difference of two large numbers.
    pub(super) fn on_task(
        &self,
        batch: &Calibration,
        schedule: &NoiseSchedule,
    ) -> Result<OnTask, ScoreError> {
        let prediction = self.prediction.as_ref().expect("BUG: the teacher arrives in every walk");
        let target = batch.target(schedule)?;
        let error: Vec<f32> = (prediction - target)?.flatten_all()?.to_vec1()?;
        let elements = error.len() / batch.len();
        let loss = |point: &[f32]| dot(point, point) / elements as f64;
        let growth = |row: &Vec<f32>| (dot(row, row) + 2.0 * dot(row, &error)) / elements as f64;
        Ok(OnTask {
            losses: self.differences.iter().flat_map(|row| row.chunks_exact(elements).map(loss)).collect(),
            growth: self.differences.iter().map(growth).collect(),
        })
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

/// Keeps only the losses.
#[derive(Default)]
pub(super) struct Losses<'a> {
    /// Per variant, `mean(d^2)` summed over the batch.
    pub(super) sums: Vec<f64>,
    /// By what each point of the batch is multiplied.
    weights: Option<&'a [f64]>,
}

impl<'a> Losses<'a> {
    pub(super) fn new(weights: Option<&'a [f64]>) -> Self {
        Self { sums: Vec::new(), weights }
    }
}

impl Chunked for Losses<'_> {}

impl Observer for Losses<'_> {
    fn finished(&mut self, _variant: usize, difference: &Tensor) -> candle_core::Result<()> {
        let points = difference.dim(0)?;
        let difference: Vec<f32> = difference.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let elements = difference.len() / points;
        let sum = weighted(&difference, &difference, elements, self.weights);
        self.sums.push(sum * points as f64 / difference.len() as f64);
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
    // Thousands of numbers near one: a sum in f32 would lose their differences from one.
    cosine.to_dtype(DType::F64)?.mean_all()?.to_scalar()
}

/// The dot product of batches of points of so many elements, each point multiplied by its weight.
fn weighted(a: &[f32], b: &[f32], elements: usize, weights: Option<&[f64]>) -> f64 {
    let Some(weights) = weights else { return dot(a, b) };
    let points = a.chunks_exact(elements).zip(b.chunks_exact(elements));
    points.zip(weights).map(|((a, b), weight)| weight * dot(a, b)).sum()
}

/// The dot product in double precision, in an order that does not depend on threads.
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
