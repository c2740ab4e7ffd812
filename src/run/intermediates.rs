//! Intermediates of stages' work that stages share, kept in the cache beside whole artefacts and held to the same rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::backend::memory;
use crate::base::{ArtefactKind, Digest, Interrupt, Manifest, Progress, clock};
use crate::cache::{Begun, CacheError, Lookup, Made, Store};
use crate::stage::{self, StageError};

/// The parts of one stage at work.
pub(super) struct Intermediates<'a> {
    pub(super) store: &'a Store,
    pub(super) kind: ArtefactKind,
    /// Whether what was kept is to be made again.
    pub(super) force: bool,
    /// What this run has made: that is as new as can be, also where another branch asks for it by force.
    pub(super) made: &'a Mutex<BTreeSet<Digest>>,
    pub(super) progress: &'a dyn Progress,
    pub(super) interrupt: &'a Interrupt,
}

impl stage::Intermediates for Intermediates<'_> {
    fn intermediate(
        &self,
        manifest: &Manifest,
        fill: &dyn Fn(&Path, &Path) -> Result<(), StageError>,
    ) -> Result<PathBuf, StageError> {
        let key = manifest.key();
        let made = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let force = self.force && !made().contains(&key);
        let begin = || {
            let mut waiting = |holder: &str| self.progress.note(&format!("waits for {holder}"));
            self.store.begin(&key, force, self.interrupt, &mut waiting).map_err(failed)
        };
        let found = match self.store.lookup(&key).map_err(failed)? {
            Lookup::Whole(entry) if !force => Begun::Cached(entry),
            Lookup::Damaged(damage) => {
                self.progress.note(&format!("damaged: {damage}; it is made again"));
                begin()?
            }
            _ => begin()?,
        };
        let entry = match found {
            Begun::Cached(entry) => entry,
            Begun::Pending(work) => {
                if work.resumed() {
                    self.progress.note("a part goes on from where it was cut off");
                }
                let begun = Instant::now();
                fill(&work.output(), &work.checkpoint())?;
                let how = Made {
                    kind: self.kind,
                    seconds: begun.elapsed().as_secs_f64(),
                    peak_bytes: memory::peak_bytes(),
                    finished: clock::now(),
                    program: env!("CARGO_PKG_VERSION").to_owned(),
                };
                let entry = work.commit(manifest, how).map_err(failed)?;
                made().insert(key);
                entry
            }
        };
        Ok(self.store.artefact(&entry).path)
    }
}

fn failed(error: CacheError) -> StageError {
    match error {
        CacheError::Interrupted(interrupted) => StageError::Interrupted(interrupted),
        other => StageError::Input(Box::new(other)),
    }
}
