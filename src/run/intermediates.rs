//! Intermediate artefacts: work that stages have in common, kept in the cache under the same rules as whole artefacts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::Sink;
use super::inputs::Inputs;
use super::notices::tell;
use crate::base::{ArtefactKind, Digest, Interrupt, Manifest, StageId};
use crate::cache::{CacheError, Lookup, Maker, Notice, Obtained, PendingArtefact, Request, Store};
use crate::stage::{self, StageError};

/// The intermediate artefacts of one running stage.
pub(super) struct Intermediates<'a> {
    pub(super) store: &'a Store,
    pub(super) stage: &'a StageId,
    pub(super) kind: ArtefactKind,
    /// Whether to make them again.
    pub(super) force: bool,
    /// Those that this run made. They are not made again, even where another branch is forced.
    pub(super) made: &'a Mutex<BTreeSet<Digest>>,
    pub(super) sink: &'a dyn Sink,
    pub(super) interrupt: &'a Interrupt,
    /// The stage's own work, which notes what it is made of.
    pub(super) pending: &'a PendingArtefact<'a>,
    /// The inputs of the stage, which are those of its intermediate artefacts.
    pub(super) inputs: &'a Inputs<'a>,
}

impl stage::Intermediates for Intermediates<'_> {
    fn intermediate(
        &self,
        manifest: &Manifest,
        fill: &dyn Fn(&Path, &Path) -> Result<(), StageError>,
    ) -> Result<PathBuf, StageError> {
        let key = manifest.key();
        self.pending.note_part(&key)?;
        let made = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let force = self.force && !made().contains(&key);
        let request = Request { manifest, kind: self.kind, force, interrupt: self.interrupt };
        let obtained = self.store.obtain(&request, &mut Intermediate { all: self, key, fill })?;
        if let Obtained::Made(_) = obtained {
            made().insert(key);
        }
        Ok(self.store.artefact(obtained.entry()).path)
    }

    fn alike(&self, manifest: &Manifest, name: &str) -> Result<Vec<(String, PathBuf)>, StageError> {
        if self.force {
            return Ok(Vec::new());
        }
        let mut whole = Vec::new();
        for (value, entry) in self.store.alike(manifest, name)? {
            self.store.hold(&entry.key);
            if let Lookup::Whole(entry) = self.store.lookup(&entry.key)? {
                whole.push((value, self.store.artefact(&entry).path));
            }
        }
        Ok(whole)
    }
}

/// Makes one of them.
struct Intermediate<'a> {
    all: &'a Intermediates<'a>,
    key: Digest,
    fill: &'a dyn Fn(&Path, &Path) -> Result<(), StageError>,
}

impl Maker for Intermediate<'_> {
    type Error = StageError;

    fn notice(&mut self, notice: Notice<'_>) {
        // No stage has it as its artefact, so it has no other name than the cache's.
        tell(self.all.sink, self.all.stage, self.key, notice, &Path::to_owned);
    }

    fn make(&mut self, pending: &PendingArtefact<'_>) -> Result<(), StageError> {
        let filled = (self.fill)(&pending.output(), &pending.checkpoint());
        filled.and(self.all.inputs.check(pending))
    }
}

impl From<CacheError> for StageError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Interrupted(interrupted) => Self::Interrupted(interrupted),
            other => Self::Input(Box::new(other)),
        }
    }
}
