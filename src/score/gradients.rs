//! The gradients of the task loss, summed by unit and timestep.
//!
//! One backward pass serves every criterion that reads gradients. Only two sums per unit are kept of a gradient, so
//! memory never holds more than one: four bytes per parameter, with four more for the weights (21 GB for SDXL in all),
//! beside the activations of a batch.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{DType, Tensor, Var};

use super::checkpoint::Sums;
use super::context::ScoringContext;
use super::error::ScoreError;
use crate::backend::threads;
use crate::data::Calibration;
use crate::model::files::weights::Weights;
use crate::model::unet::UNet;
use crate::nn::{self, Found, accumulation_dtype, mean_square_difference};
use crate::sample::NoiseSchedule;
use crate::train::Trainable;

const LOSS: &str = "loss";
const SIGNED: &str = "signed";
const ABSOLUTE: &str = "absolute";

/// The sums of one backward pass over all points.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// In ascending order. The points of each timestep have a loss and a gradient of their own.
    pub timesteps: Vec<TimestepGradients>,
}

/// The points of one timestep.
#[derive(Clone, Debug, PartialEq)]
pub struct TimestepGradients {
    /// The timestep.
    pub timestep: i64,
    /// The number of points with it.
    pub points: usize,
    /// Their mean task loss `L_t`.
    pub loss: f64,
    /// Per unit, `sum w g` over its weights, `g` the gradient of `L_t`.
    pub signed: Vec<f64>,
    /// Per unit, `sum |w g|`.
    pub absolute: Vec<f64>,
}

/// Differentiates the task loss at `points` with respect to every weight, in f32.
pub fn gradients(
    unet: &UNet,
    weights: &Weights,
    points: &Calibration,
    schedule: &NoiseSchedule,
    context: &ScoringContext<'_>,
) -> Result<Gradients, ScoreError> {
    if points.is_empty() {
        return Err(ScoreError::NoPoints);
    }
    let (points, groups) = by_timestep(points)?;
    let device = unet.device();
    let dtype = accumulation_dtype(unet.dtype());
    let trainable = Trainable::read(unet.config(), weights, |_| false, dtype, device)?;
    let units: Vec<_> = unet.units().iter().map(|unit| &unit.id).collect();
    let what = format!("{:?} {units:?} {groups:?} {}", unet.config().removed_units, context.limits.points);
    let path = Sums::path(context.checkpoint, "gradients", &what);
    let pieces: Vec<_> = groups.iter().map(|group| group.points.clone()).collect();
    let sums = Sums::over(&pieces, "points", &path, context, |group| {
        let name = |what: &str| format!("{what} {}", group.start);
        let (loss, store) =
            threads::run(|| differentiate(trainable.unet(), &points, schedule, group.clone(), context))?;
        let (signed, absolute) = sums_by_unit(unet, trainable.weights(), &store)?;
        Ok(vec![(name(LOSS), vec![loss]), (name(SIGNED), signed), (name(ABSOLUTE), absolute)])
    })?;
    let of_timestep = |group: Group| {
        let get = |what: &str| sums.get(&format!("{what} {}", group.points.start)).to_vec();
        TimestepGradients {
            timestep: group.timestep,
            points: group.points.len(),
            loss: get(LOSS)[0],
            signed: get(SIGNED),
            absolute: get(ABSOLUTE),
        }
    };
    Ok(Gradients { timesteps: groups.into_iter().map(of_timestep).collect() })
}

/// The places of the points of one timestep.
#[derive(Debug)]
struct Group {
    timestep: i64,
    points: Range<usize>,
}

/// The points in the order of their timesteps, and their groups.
fn by_timestep(points: &Calibration) -> candle_core::Result<(Calibration, Vec<Group>)> {
    let timesteps = points.timestep.to_vec1::<i64>()?;
    let mut order: Vec<u32> = (0..timesteps.len() as u32).collect();
    order.sort_by_key(|&point| timesteps[point as usize]);
    let mut groups = Vec::new();
    let mut start = 0;
    for run in order.chunk_by(|&a, &b| timesteps[a as usize] == timesteps[b as usize]) {
        groups.push(Group { timestep: timesteps[run[0] as usize], points: start..start + run.len() });
        start += run.len();
    }
    Ok((points.select(&order)?, groups))
}

/// The mean task loss of some points and its gradient, in batches of the limit's size.
fn differentiate(
    unet: &UNet,
    points: &Calibration,
    schedule: &NoiseSchedule,
    group: Range<usize>,
    context: &ScoringContext<'_>,
) -> Result<(f64, Found), ScoreError> {
    let (mut total, mut gradients) = (0.0, None::<Found>);
    for start in group.clone().step_by(context.limits.points.max(1)) {
        context.interrupt.check()?;
        let end = group.end.min(start + context.limits.points.max(1));
        let piece = points.batch_on(start..end, unet.device())?;
        let target = piece.target(schedule)?;
        let (loss, found) = nn::differentiate(|| {
            let prediction = unet.forward(&piece.sample, &piece.timestep, &piece.conditioning())?;
            mean_square_difference(&prediction, &target)? * (piece.len() as f64 / group.len() as f64)
        })?;
        match &mut gradients {
            Some(gradients) => gradients.extend(found)?,
            None => gradients = Some(found),
        }
        // Read after the backward pass is queued: reading waits for the device.
        total += f64::from(loss.to_scalar::<f32>()?);
    }
    Ok((total, gradients.expect("BUG: a group has points")))
}

/// Per unit, `sum w g` and `sum |w g|`: rows are summed in f32, and the rows' sums in f64.
fn sums_by_unit(
    unet: &UNet,
    variables: &BTreeMap<String, Var>,
    gradients: &Found,
) -> candle_core::Result<(Vec<f64>, Vec<f64>)> {
    let total = |product: &Tensor| -> candle_core::Result<f64> {
        Ok(product.sum(1)?.to_vec1::<f32>()?.into_iter().map(f64::from).sum())
    };
    let mut sums = BTreeMap::new();
    for (name, variable) in variables {
        // A weight that the loss does not depend on has no gradient.
        let Some(gradient) = gradients.get(variable) else { continue };
        let weight = variable.as_detached_tensor();
        let product = (weight * gradient.detach())?.to_dtype(DType::F32)?;
        let product = product.reshape((product.dim(0)?, ()))?;
        sums.insert(name.as_str(), (total(&product)?, total(&product.abs()?)?));
    }
    let unit = |unit| {
        let tensors = unet.inventory().tensors_of(unit).filter_map(|entry| sums.get(entry.name.as_str()));
        tensors.fold((0.0, 0.0), |sum, tensor| (sum.0 + tensor.0, sum.1 + tensor.1))
    };
    Ok(unet.units().iter().map(unit).unzip())
}
