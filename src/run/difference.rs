//! Why a stage has other keys in two runs: the values that differ, followed back through its inputs to the stages where the
//! difference begins.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{RunRecord, StageRecord};
use crate::base::StageId;
use crate::plan::Reason;

/// Where a difference begins.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cause {
    /// The stage that it begins at.
    pub stage: StageId,
    /// What differs there; absent if its key is the same, but its artefact has other bytes.
    #[serde(flatten)]
    pub reason: Option<Reason>,
}

/// A stage of a run.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    /// The run.
    pub record: &'a RunRecord,
    /// The stage.
    pub stage: &'a StageRecord,
}

impl<'a> Stage<'a> {
    /// The stage whose artefact is the input of this name.
    pub fn input(self, name: &str) -> Option<Self> {
        let index = self.record.stages.iter().position(|stage| stage.id == self.stage.id)?;
        let (_, from) = self.record.graph.inputs(index).into_iter().find(|(input, _)| *input == name)?;
        Some(Self { record: self.record, stage: self.record.stages.get(from)? })
    }

    /// The values of `self` that differ from those of `old`.
    pub fn changes_since(self, old: Stage<'_>) -> Vec<Reason> {
        match (&self.stage.manifest, &old.stage.manifest) {
            (Some(new), Some(old)) => new.changes_since(old).into_iter().map(Reason::Changed).collect(),
            _ => Vec::new(),
        }
    }

    /// Where the difference between two stages begins.
    pub fn causes(self, old: Stage<'_>) -> Vec<Cause> {
        let mut causes = Vec::new();
        self.gather(old, &mut BTreeSet::new(), &mut causes);
        causes
    }

    fn gather(self, old: Stage<'_>, seen: &mut BTreeSet<StageId>, causes: &mut Vec<Cause>) {
        if !seen.insert(self.stage.id.clone()) {
            return;
        }
        let own = |reason| Cause { stage: self.stage.id.clone(), reason };
        let changes = self.changes_since(old);
        if changes.is_empty() && self.differs_in_bytes(old) {
            causes.push(own(None));
        }
        for reason in changes {
            let Reason::Changed(change) = &reason else { continue };
            let inputs = change.name.strip_prefix("input ").map(|name| (self.input(name), old.input(name)));
            match inputs {
                Some((Some(new), Some(old)))
                    if new.stage.manifest.is_some() && old.stage.manifest.is_some() =>
                {
                    new.gather(old, seen, causes);
                }
                _ => causes.push(own(Some(reason))),
            }
        }
    }

    fn differs_in_bytes(self, old: Stage<'_>) -> bool {
        let digest = |stage: Stage<'_>| stage.stage.artefact.as_ref().map(|artefact| artefact.digest);
        matches!((digest(self), digest(old)), (Some(new), Some(old)) if new != old)
    }
}
