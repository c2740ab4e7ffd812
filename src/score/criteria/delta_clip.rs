//! Delta CLIP: how much worse pictures match their prompts when the unit is removed.
//! Li et al. 2023 (SnapFusion) drop the blocks with the smallest loss of CLIP score per millisecond saved. The division is
//! left to the solver, which weighs every criterion against the budget.
//!
//! Negative where pictures match better without the unit, which is noise if there are few pictures.
//! How pictures are drawn is not a parameter of this file: it belongs to [`Teacher::clip_score`](crate::score::Teacher),
//! which the stage makes.

use serde::Deserialize;

use crate::score::checkpoint::Sums;
use crate::score::criterion::{Criterion, CriterionInfo};
use crate::score::error::ScoreError;
use crate::score::evidence::Evidence;
use crate::score::need::Need;

const SCORE: &str = "score";

/// It has no parameters.
#[derive(Debug, Default, Deserialize)]
pub(super) struct DeltaClip {}

pub(super) const INFO: CriterionInfo = CriterionInfo {
    name: "delta-clip",
    summary: "drop of the pictures' CLIP score without the unit",
    source: "Li et al. 2023, SnapFusion, arXiv 2306.00980",
    parameters: None,
};

impl Criterion for DeltaClip {
    fn info(&self) -> &'static CriterionInfo {
        &INFO
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let (unet, context) = (evidence.teacher.unet, evidence.context);
        let clip_score = evidence.teacher.clip_score.expect("BUG: needs were checked before");
        context.progress.note("drawing pictures without each unit");
        let units = unet.units();
        let name = |place: usize| format!("{SCORE} {place}");
        let ids: Vec<_> = units.iter().map(|unit| &unit.id).collect();
        let what = format!("{:?} {ids:?}", unet.config().removed_units);
        let path = Sums::path(context.checkpoint, "pictures", &what);
        // The teacher's pictures come first, then those without each unit.
        let pieces: Vec<_> = (0..=units.len()).map(|place| place..place + 1).collect();
        let sums = Sums::over(&pieces, "galleries", &path, context, |place| {
            let score = match place.start.checked_sub(1) {
                None => clip_score(unet)?,
                Some(unit) => {
                    let id = &units[unit].id;
                    let pruned = unet.prune(&[id.clone()].into())?;
                    clip_score(&pruned).map_err(|error| error.without(id))?
                }
            };
            Ok(vec![(name(place.start), vec![score])])
        })?;
        let score = |place: usize| sums.get(&name(place))[0];
        Ok((1..=units.len()).map(|place| score(0) - score(place)).collect())
    }
}
