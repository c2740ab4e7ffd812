//! One traversal instead of one forward pass per variant.
//!
//! Up to its first removed unit a variant equals the teacher. So the U-Net is walked once: the teacher's
//! state goes from step to step, and at its first removed unit a variant leaves it with a state of its
//! own. For single units that is about half of the work of `n + 1` passes, and each weight is touched once.
//!
//! A variant's state begins as a clone of the teacher's, which shares all tensors: the skips from before they parted
//! are never copied. What a step makes of the time and the text is made once for all. Where features are small, variants
//! go through a step as one batch: a product of few rows takes as long as one of many.

use std::collections::BTreeSet;

use candle_core::Tensor;

use super::ScoreError;
use crate::base::{Interrupt, UnitId};
use crate::data::Calibration;
use crate::model::network::{PruneError, Step, Unit, WalkState};
use crate::model::unet::UNet;
use crate::nn::accumulation_dtype;

/// Numbers in the features of one batch on a CPU. Of the small model's units (16x16 latents, 8 points, two cores of an EPYC
/// 9005, 2026-11) the walk took 0.52 of removing and running with this; 0.56 with none together and with 2^19, 0.60 with 2^22.
const BATCH: usize = 1 << 17;

/// A U-Net without some units.
#[derive(Clone, Debug)]
pub struct Variant<'a> {
    /// In walk order, none inside another.
    removed: Vec<&'a Unit>,
}

/// Sees what a walk brings to light. Variants are numbered as they were given.
pub trait Observer {
    /// A variant removed its first unit: what then stands where the unit's output stood in the teacher.
    /// Pixels [b, c, h, w] or tokens [b, n, c].
    fn bypassed(&mut self, _variant: usize, _without: &Tensor, _with: &Tensor) -> candle_core::Result<()> {
        Ok(())
    }

    /// The teacher arrived, before all variants: its prediction, [b, c, h, w] in f32, or in f64 where the U-Net computes in it.
    fn arrived(&mut self, _prediction: &Tensor) -> candle_core::Result<()> {
        Ok(())
    }

    /// A variant arrived: its prediction less the teacher's, in the shape and type of the teacher's.
    fn finished(&mut self, variant: usize, difference: &Tensor) -> candle_core::Result<()>;
}

impl<'a> Variant<'a> {
    /// `unet` without this one unit.
    pub fn without(unit: &'a Unit) -> Self {
        Self { removed: vec![unit] }
    }

    /// `unet` without these units, of whatever granularity. A composite that loses the last of what it holds goes whole.
    pub fn without_all(unet: &'a UNet, units: &BTreeSet<UnitId>) -> Result<Self, PruneError> {
        let gone = unet.config().prune(units)?.removed_units;
        Ok(Self {
            removed: unet.inventory().removable().iter().filter(|unit| gone.contains(&unit.id)).collect(),
        })
    }
}

/// A variant on its way.
struct Walker<'a> {
    /// What it has yet to remove.
    ahead: &'a [&'a Unit],
    /// Its own state, once it has left the teacher.
    state: Option<WalkState>,
    /// The index of the step that it takes next; later than the teacher's inside of a removed unit.
    next: usize,
}

impl Walker<'_> {
    /// Its state, if it has left the teacher and takes this step now.
    fn takes(&mut self, index: usize) -> Option<&mut WalkState> {
        let state = self.state.as_mut().filter(|_| self.next == index)?;
        self.next += 1;
        Some(state)
    }

    /// Removes the unit that begins with this step, if that is one of its own. Says whether it left the teacher there.
    fn bypass(&mut self, index: usize, step: &Step, teacher: &WalkState) -> candle_core::Result<bool> {
        let Some((unit, ahead)) = self.ahead.split_first().filter(|(unit, _)| unit.steps.start == index)
        else {
            return Ok(false);
        };
        let leaves = self.state.is_none();
        step.bypass(self.state.get_or_insert_with(|| teacher.clone()))?;
        self.next = unit.steps.end;
        self.ahead = ahead;
        Ok(leaves)
    }
}

/// How many states with such features go through a step as one batch. A GPU takes all: it waits for launches, not for caches.
fn in_a_batch(hidden: &Tensor) -> usize {
    match hidden.device().is_cpu() {
        true => (BATCH / hidden.elem_count().max(1)).max(1),
        false => usize::MAX,
    }
}

/// Walks `unet` once over `points`, with `variants` beside it, of which so many at most are `together` in a batch. How
/// they are put together decides about rounding, so it has to depend on shapes alone.
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
    let mut walkers: Vec<_> =
        variants.iter().map(|variant| Walker { ahead: &variant.removed, state: None, next: 0 }).collect();
    // Variants between their first removed unit's first step and its last.
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
        // Without anything removed a variant is the teacher.
        let hidden = walker.state.map_or_else(|| prediction.clone(), |state| state.hidden);
        observer.finished(variant, &hidden.to_dtype(dtype)?.sub(&prediction)?)?;
    }
    Ok(())
}
