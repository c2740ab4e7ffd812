//! Executes a run again in another cache and compares it with its record, stage by stage.

mod files;
mod size;
mod tensors;

use std::collections::BTreeMap;

use serde::Serialize;

use super::difference::Stage;
use super::{RunRecord, StageRecord};
use crate::base::StageId;
use crate::plan::Reason;

pub use size::{FileDifference, Number, Size};

/// What a stage of the new run is compared with that of the old one.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verified {
    /// The stage.
    pub id: StageId,
    /// How it ended.
    pub outcome: Outcome,
    /// The values of its key that differ, but for the digests of inputs.
    pub changes: Vec<Reason>,
    /// The stages among its inputs whose artefacts differ.
    pub after: Vec<StageId>,
    /// The files that differ, if the old ones are still there.
    pub files: Vec<FileDifference>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a stage ended that was executed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// With the same bytes.
    Equal,
    /// With other bytes from equal inputs.
    Differs,
    /// With other bytes, as could be expected: its inputs have other bytes too.
    Follows,
    /// It gave an error, or an input is missing.
    Failed,
}

/// Compares the stages of a run that have artefacts with those of its repetition, in the order of the graph.
pub fn compare(old: &RunRecord, new: &RunRecord, wanted: impl Fn(&StageId) -> bool) -> Vec<Verified> {
    let mut outcomes: BTreeMap<StageId, Outcome> = BTreeMap::new();
    let mut all = Vec::new();
    for &index in old.graph.order() {
        let stage = &old.stages[index];
        if stage.artefact.is_none() || !wanted(&stage.id) {
            continue;
        }
        let Some(again) = new.stage(stage.id.as_str()) else { continue };
        let inputs = old.graph.inputs(index).into_iter().map(|(_, from)| old.stages[from].id.clone());
        let differs = |id: &StageId| outcomes.get(id).is_some_and(|outcome| *outcome != Outcome::Equal);
        let mut after: Vec<StageId> = inputs.filter(differs).collect();
        after.dedup();
        let one = verified((old, stage), (new, again), after);
        outcomes.insert(one.id.clone(), one.outcome);
        all.push(one);
    }
    all
}

fn verified(
    (old, stage): (&RunRecord, &StageRecord),
    (new, again): (&RunRecord, &StageRecord),
    after: Vec<StageId>,
) -> Verified {
    let (here, there) = (Stage { record: new, stage: again }, Stage { record: old, stage });
    let is_own =
        |reason: &Reason| !matches!(reason, Reason::Changed(change) if change.name.starts_with("input "));
    let changes = here.changes_since(there).into_iter().filter(is_own).collect();
    let (outcome, files) = match (&stage.artefact, &again.artefact) {
        (Some(before), Some(now)) if before.digest == now.digest => (Outcome::Equal, Vec::new()),
        (Some(before), Some(now)) => {
            let outcome = if after.is_empty() { Outcome::Differs } else { Outcome::Follows };
            (outcome, files::differences(&before.path, &now.path))
        }
        _ => (Outcome::Failed, Vec::new()),
    };
    Verified { id: stage.id.clone(), outcome, changes, after, files, error: again.error.clone() }
}
