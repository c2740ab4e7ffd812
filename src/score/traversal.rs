//! The effects of removing each unit alone, measured in one traversal of the U-Net per batch of points.

use super::batches::{batches, in_batches, walk_in_chunks};
use super::checkpoint::Sums;
use super::context::ScoringContext;
use super::effects::Effects;
use super::error::ScoreError;
use super::gram::Gram;
use super::walk::Variant;
use crate::data::Calibration;
use crate::model::unet::UNet;
use crate::sample::NoiseSchedule;

const GRAM: &str = "gram";
const INFLUENCE: &str = "influence";
const LOSSES: &str = "losses";
const GROWTH: &str = "growth";

/// The effects of each unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Traversal {
    /// `E mean(d_i d_j)`; its diagonal is the output loss.
    pub gram: Gram,
    /// `1 - E cos` between the features at a unit's output with and without it.
    pub influence: Vec<f64>,
    /// The effects on the task, if a noise schedule was given.
    pub task: Option<TaskEffects>,
}

/// The effects of each unit on the task that the U-Net was trained for.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskEffects {
    /// Per unit, the output loss at each point.
    pub losses: Vec<Vec<f64>>,
    /// How much the task loss grows without the unit; negative where it falls.
    pub growth: Vec<f64>,
}

/// Removes each unit of `unet` alone. Effects on the task are measured if a `schedule` says what the targets are.
pub fn traverse(
    unet: &UNet,
    points: &Calibration,
    schedule: Option<&NoiseSchedule>,
    context: &ScoringContext<'_>,
) -> Result<Traversal, ScoreError> {
    let variants: Vec<_> = unet.units().iter().map(Variant::without).collect();
    let units: Vec<_> = unet.units().iter().map(|unit| unit.id.clone()).collect();
    let what = format!("{units:?} {} {}", schedule.is_some(), context.limits.points);
    let path = Sums::path(context.checkpoint, "traversal", &what);
    let sums = in_batches(unet, points, context, &path, |places, batch| {
        let mut effects = Effects::new(units.len());
        walk_in_chunks(unet, batch, &variants, context, &mut effects)?;
        let mut sums = vec![(GRAM.to_owned(), effects.gram(batch.len(), context.weights_of(&places)))];
        if let Some(schedule) = schedule {
            let task = effects.on_task(batch, schedule)?;
            sums.extend([(losses_of(places.start), task.losses), (GROWTH.to_owned(), task.growth)]);
        }
        sums.push((INFLUENCE.to_owned(), effects.influence));
        Ok(sums)
    })?;
    let losses = |unit: usize| {
        let of_batch = |places: std::ops::Range<usize>| {
            let (count, rows) = (places.len(), sums.get(&losses_of(places.start)));
            rows[unit * count..(unit + 1) * count].iter().copied()
        };
        batches(points.len(), context).into_iter().flat_map(of_batch).collect()
    };
    let task = schedule
        .map(|_| TaskEffects { losses: (0..units.len()).map(losses).collect(), growth: sums.means(GROWTH) });
    Ok(Traversal { gram: Gram::new(units, sums.means(GRAM)), influence: sums.means(INFLUENCE), task })
}

/// The name of the losses of the batch that begins with this point: they are not summed over batches.
fn losses_of(start: usize) -> String {
    format!("{LOSSES} {start}")
}
