//! Delta CLIP: how much worse pictures fit their prompts when the unit is gone.
//! Li et al. 2023 (SnapFusion) drop the blocks with the least loss of CLIP score per millisecond saved. The division is not
//! made here: it belongs to the solver, which weighs every criterion against the budget at hand.
//!
//! Negative where pictures fit better without the unit, which with few pictures is noise.

use super::checkpoint::Sums;
use super::{Criterion, CriterionInfo, Evidence, Need, ScoreError};

const SCORE: &str = "score";

pub(super) struct DeltaClip;

impl Criterion for DeltaClip {
    fn info(&self) -> CriterionInfo {
        CriterionInfo {
            name: "delta-clip",
            summary: "drop of the pictures' CLIP score without the unit",
            source: "Li et al. 2023, SnapFusion, arXiv 2306.00980",
        }
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let (unet, work) = (evidence.teacher.unet, evidence.work);
        let clip_score = evidence.teacher.clip_score.expect("BUG: needs were checked before");
        work.progress.note("drawing pictures without each unit");
        let units = unet.units();
        let name = |place: usize| format!("{SCORE} {place}");
        let ids: Vec<_> = units.iter().map(|unit| &unit.id).collect();
        let what = format!("{:?} {ids:?}", unet.config().removed_units);
        let path = Sums::path(work.checkpoint, "pictures", &what);
        // The teacher's pictures come first, then those without each unit.
        let pieces: Vec<_> = (0..=units.len()).map(|place| place..place + 1).collect();
        let sums = Sums::over(&pieces, "galleries", &path, work, |place| {
            let score = match place.start.checked_sub(1) {
                None => clip_score(unet)?,
                Some(unit) => clip_score(&unet.prune(&[units[unit].id.clone()].into())?)?,
            };
            Ok(vec![(name(place.start), vec![score])])
        })?;
        let score = |place: usize| sums.get(&name(place))[0];
        Ok((1..=units.len()).map(|place| score(0) - score(place)).collect())
    }
}
