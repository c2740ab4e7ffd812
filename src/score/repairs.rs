//! For each unit the linear map that makes up best for its removal: the map that a reconstruction with `shortcut` or `linear`
//! would find if only this unit were removed. A pass of the teacher gives the sums of all units.
//!
//! The points are halved: what is fitted to one half is measured on the other, so that a map gets no credit for fitting its
//! own points. The other half also chooses the strength of the ridge.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::context::ScoringContext;
use super::error::ScoreError;
use super::repair::Repair;
use crate::backend::memory;
use crate::data::Calibration;
use crate::model::network::{Unit, WalkState};
use crate::model::unet::UNet;
use crate::nn::image;
use crate::nn::least_squares::{Change, Layer, Normal};

/// The repair of each unit; none where nothing helps.
pub(super) type Repairs = Vec<Option<Repair>>;

/// The halves of so many points.
pub(super) fn halves(points: usize) -> [Range<usize>; 2] {
    [0..points / 2, points / 2..points]
}

/// The repairs that are fitted to the first half of the points, and to the second.
pub(super) fn repairs(
    unet: &UNet,
    points: &Calibration,
    context: &ScoringContext<'_>,
) -> Result<[Repairs; 2], ScoreError> {
    let mut found: [Repairs; 2] = Default::default();
    for group in groups(unet) {
        let units = &unet.units()[group];
        let new = |unit: &Unit| {
            let (inputs, outputs) = unet.inventory().widths(unit);
            Ok([Normal::new(inputs, outputs)?, Normal::new(inputs, outputs)?])
        };
        let mut sums: Vec<[Normal; 2]> = units.iter().map(new).collect::<Result<_, candle_core::Error>>()?;
        let mut is_tokens = vec![false; units.len()];
        for (half, range) in halves(points.len()).into_iter().enumerate() {
            for start in range.clone().step_by(context.limits.points.max(1)) {
                let end = range.end.min(start + context.limits.points.max(1));
                let batch = points.batch_on(start..end, unet.device())?;
                lacks(unet, &batch, units, context, &mut |unit, before, lack| {
                    is_tokens[unit] = before.rank() == 3;
                    sums[unit][half].add(before, 1, lack)
                })?;
            }
        }
        for (unit, sums) in sums.iter().enumerate() {
            for (half, found) in found.iter_mut().enumerate() {
                found.push(repair(unet, &sums[half], &sums[1 - half], is_tokens[unit])?);
            }
        }
    }
    Ok(found)
}

/// The best repair by sums over two halves of the points.
fn repair(unet: &UNet, fitted: &Normal, held: &Normal, tokens: bool) -> candle_core::Result<Option<Repair>> {
    let (inputs, outputs) = fitted.sizes()?;
    let none = Layer {
        weight: Tensor::zeros((outputs, inputs), DType::F64, &Device::Cpu)?,
        bias: Tensor::zeros(outputs, DType::F64, &Device::Cpu)?,
        dtypes: (DType::F32, DType::F32),
    };
    let best = Change::best(&none, fitted, held)?.filter(|change| change.error < held.energy);
    best.map(|Change { weights: (weight, bias), .. }| {
        Repair::new(&weight, &bias, tokens, unet.dtype(), unet.device())
    })
    .transpose()
}

/// Units whose sums over both halves fit together into half of the memory that is free. Results do not depend on it.
fn groups(unet: &UNet) -> Vec<Range<usize>> {
    let budget = memory::free(&Device::Cpu) / 2;
    let (mut groups, mut bytes): (Vec<Range<usize>>, u64) = (Vec::new(), 0);
    for (index, unit) in unet.units().iter().enumerate() {
        let (inputs, outputs) = unet.inventory().widths(unit);
        let needed = 2 * Normal::bytes(inputs, outputs);
        match groups.last_mut().filter(|_| bytes + needed <= budget) {
            Some(group) => (group.end, bytes) = (index + 1, bytes + needed),
            None => {
                groups.push(index..index + 1);
                bytes = needed;
            }
        }
    }
    groups
}

/// Walks the teacher once and gives `receive` for each unit the state before it, and what the state lacks without it.
fn lacks(
    unet: &UNet,
    batch: &Calibration,
    units: &[Unit],
    context: &ScoringContext<'_>,
    receive: &mut dyn FnMut(usize, &Tensor, &Tensor) -> candle_core::Result<()>,
) -> Result<(), ScoreError> {
    let condition = unet.condition(&batch.timestep, &batch.conditioning())?;
    let mut state = unet.begin(&batch.sample)?;
    let mut open: Vec<(usize, Tensor, Tensor)> = Vec::new();
    let pixels = |x: &Tensor| if x.rank() == 4 { image::end(x) } else { Ok(x.clone()) };
    for (index, step) in unet.steps().enumerate() {
        context.interrupt.check()?;
        let step = step?;
        for (unit, _) in units.iter().enumerate().filter(|(_, unit)| unit.steps.start == index) {
            let before = state.hidden.clone();
            let mut without = WalkState { hidden: before.clone(), skips: Vec::new(), residual: None };
            step.bypass(&mut without)?;
            open.push((unit, before, without.hidden));
        }
        step.advance(&mut state, &condition)?;
        for (unit, before, without) in open.extract_if(.., |one| units[one.0].steps.end == index + 1) {
            let lack = (state.hidden.to_dtype(DType::F32)? - without.to_dtype(DType::F32)?)?;
            receive(unit, &pixels(&before)?, &pixels(&lack)?)?;
        }
    }
    Ok(())
}
