//! One traversal instead of one forward pass per variant.
//!
//! Up to its first removed unit, a variant equals the teacher. So the U-Net is walked once: the teacher's state advances
//! step by step, and at its first removed unit a variant branches off with a state of its own. For single units this is
//! about half the work of `n + 1` passes, and each weight is read once.
//!
//! A variant's state begins as a clone of the teacher's, which shares all tensors: earlier skips are never copied. What a
//! step computes from time and text is shared by all states. Where features are small, several variants go through a step
//! as one batch: a matrix product of few rows takes as long as one of many.

use std::collections::BTreeSet;

use candle_core::Tensor;

use super::error::ScoreError;
use super::repair::Repair;
use crate::base::{Interrupt, UnitId};
use crate::data::Calibration;
use crate::model::network::{PruneError, Step, Unit, WalkState};
use crate::model::unet::UNet;
use crate::nn::accumulation_dtype;

/// Numbers in the features of one batch on a CPU. For the units of the small model (16x16 latents, 8 points, two cores of an
/// EPYC 9005, 2026-11) the walk took 0.52 of the time of separate passes with this value; 0.56 without batches and with 2^19,
/// 0.60 with 2^22.
const BATCH: usize = 1 << 17;

/// A U-Net without some units.
#[derive(Clone, Debug)]
pub struct Variant<'a> {
    /// In walk order, none inside another.
    removed: Vec<&'a Unit>,
    /// What makes up for the first of them.
    repair: Option<&'a Repair>,
}

/// Receives the results of a walk. Variants are numbered in the given order.
pub trait Observer {
    /// A variant removed its first unit: the features at the unit's output without it and with it.
    /// Pixels [b, c, h, w] or tokens [b, n, c].
    fn bypassed(&mut self, _variant: usize, _without: &Tensor, _with: &Tensor) -> candle_core::Result<()> {
        Ok(())
    }

    /// The teacher finished, before all variants: its prediction, [b, c, h, w] in f32, or in f64 if the U-Net computes in f64.
    fn arrived(&mut self, _prediction: &Tensor) -> candle_core::Result<()> {
        Ok(())
    }

    /// A variant finished: its prediction less the teacher's, in the shape and type of the teacher's.
    fn finished(&mut self, variant: usize, difference: &Tensor) -> candle_core::Result<()>;
}

impl<'a> Variant<'a> {
    /// `unet` without this one unit.
    pub fn without(unit: &'a Unit) -> Self {
        Self::repaired(unit, None)
    }

    /// `unet` without this one unit, and with a linear map that makes up for it.
    pub(super) fn repaired(unit: &'a Unit, repair: Option<&'a Repair>) -> Self {
        Self { removed: vec![unit], repair }
    }

    /// `unet` without these units, of any granularity. A composite that loses all its parts is removed whole.
    pub fn without_all(unet: &'a UNet, units: &BTreeSet<UnitId>) -> Result<Self, PruneError> {
        let gone = unet.config().prune(units)?.removed_units;
        Ok(Self {
            removed: unet.inventory().removable().iter().filter(|unit| gone.contains(&unit.id)).collect(),
            repair: None,
        })
    }
}

/// A variant during the walk.
struct Walker<'a> {
    /// The units that it has yet to remove.
    ahead: &'a [&'a Unit],
    /// What makes up for the first of them.
    repair: Option<&'a Repair>,
    /// Its own state, once it has branched off.
    state: Option<WalkState>,
    /// The index of its next step; later than the teacher's inside a removed unit.
    next: usize,
}

impl Walker<'_> {
    /// Its state, if it has branched off and takes this step now.
    fn takes(&mut self, index: usize) -> Option<&mut WalkState> {
        let state = self.state.as_mut().filter(|_| self.next == index)?;
        self.next += 1;
        Some(state)
    }

    /// Removes the unit that begins with this step, if it is one of its own. Returns whether it branched off here.
    fn bypass(&mut self, index: usize, step: &Step, teacher: &WalkState) -> candle_core::Result<bool> {
        let Some((unit, ahead)) = self.ahead.split_first().filter(|(unit, _)| unit.steps.start == index)
        else {
            return Ok(false);
        };
        let leaves = self.state.is_none();
        let state = self.state.get_or_insert_with(|| teacher.clone());
        let before = state.hidden.clone();
        step.bypass(state)?;
        if let Some(repair) = self.repair.take() {
            state.hidden = repair.onto(&state.hidden, &before)?;
        }
        self.next = unit.steps.end;
        self.ahead = ahead;
        Ok(leaves)
    }
}

/// How many states with such features go through a step as one batch. A GPU takes all: launches cost more than cache misses.
fn in_a_batch(hidden: &Tensor) -> usize {
    match hidden.device().is_cpu() {
        true => (BATCH / hidden.elem_count().max(1)).max(1),
        false => usize::MAX,
    }
}

/// Walks `unet` once over `points`, with `variants` beside it, of which at most `together` share a batch. Batches affect
/// rounding, so they must depend on shapes alone.
pub fn walk(
    unet: &UNet,
    points: &Calibration,
    variants: &[Variant<'_>],
    together: usize,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<(), ScoreError> {
    let condition = unet.condition(&points.timestep, &points.conditioning())?;
    let mut teacher = unet.begin(&points.sample)?;
    let mut walkers: Vec<_> = (variants.iter())
        .map(|variant| Walker { ahead: &variant.removed, repair: variant.repair, state: None, next: 0 })
        .collect();
    // Variants between the first and the last step of their first removed unit.
    let mut leaving = Vec::new();
    for (index, step) in unet.steps().enumerate() {
        interrupt.check()?;
        let step = step?;
        for (variant, walker) in walkers.iter_mut().enumerate() {
            if walker.bypass(index, &step, &teacher)? {
                leaving.push(variant);
            }
        }
        let shared = step.share(&condition)?;
        let fitting = in_a_batch(&teacher.hidden);
        for group in walkers.chunks_mut(together) {
            let mut states: Vec<_> = group.iter_mut().filter_map(|walker| walker.takes(index)).collect();
            for batch in states.chunks_mut(fitting) {
                step.advance_all(batch, &shared)?;
            }
        }
        step.advance_with(&mut teacher, &shared)?;
        for variant in leaving.extract_if(.., |variant| walkers[*variant].next == index + 1) {
            if let Some(state) = &walkers[variant].state {
                observer.bypassed(variant, &state.hidden, &teacher.hidden)?;
            }
        }
    }
    let dtype = accumulation_dtype(unet.dtype());
    let prediction = teacher.hidden.to_dtype(dtype)?;
    observer.arrived(&prediction)?;
    for (variant, walker) in walkers.into_iter().enumerate() {
        // A variant without removed units is the teacher.
        let hidden = walker.state.map_or_else(|| prediction.clone(), |state| state.hidden);
        observer.finished(variant, &hidden.to_dtype(dtype)?.sub(&prediction)?)?;
    }
    Ok(())
}
