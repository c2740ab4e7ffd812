//! A stage that has no artefact yet, as its run's record shows it: where its checkpoint is, and whether it is at work.

use std::path::{Path, PathBuf};

use super::{RunRecord, StageRecord};
use crate::cache::{CacheError, Place, Store};

/// The work of a stage that has no artefact yet.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The folder of its checkpoint.
    pub checkpoint: PathBuf,
    /// Whether a process is at work on it.
    pub running: bool,
}

impl Unfinished {
    /// The work of a stage; `None` if it has its artefact, or has not begun.
    pub fn of(record: &RunRecord, stage: &StageRecord) -> Result<Option<Self>, CacheError> {
        let (Some(key), None) = (&stage.key, &stage.artefact) else { return Ok(None) };
        // The record does not name the cache, but every artefact in it does, and a stage that works has inputs.
        let artefacts = record.stages.iter().filter_map(|stage| stage.artefact.as_ref());
        let Some(place) = artefacts.filter_map(|artefact| Place::of(&artefact.path)).next() else {
            return Ok(None);
        };
        let store = Store::open(&place.root)?;
        let Some(checkpoint) = store.checkpoint_of(key) else { return Ok(None) };
        Ok(Some(Self { checkpoint, running: store.is_at_work(key)? }))
    }
}

impl RunRecord {
    /// The artefact's folder of an input of a stage.
    pub fn input(&self, stage: &str, name: &str) -> Option<&Path> {
        let index = self.stages.iter().position(|one| one.id.as_str() == stage)?;
        let (_, from) = self.graph.inputs(index).into_iter().find(|(input, _)| *input == name)?;
        Some(&self.stages.get(from)?.artefact.as_ref()?.path)
    }
}
