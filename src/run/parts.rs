//! Parts of stages' work that stages share, kept in the cache beside whole artefacts and held to the same rules.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::backend::memory;
use crate::base::{Interrupt, Manifest, Progress, clock};
use crate::cache::{Begun, CacheError, Lookup, Made, Store};
use crate::stage::{self, ArtefactKind, StageError};

/// The parts of one stage at work.
pub(super) struct Parts<'a> {
    pub(super) store: &'a Store,
    pub(super) kind: ArtefactKind,
    /// Whether what was kept is to be made again.
    pub(super) force: bool,
    pub(super) progress: &'a dyn Progress,
    pub(super) interrupt: &'a Interrupt,
}

impl stage::Parts for Parts<'_> {
    fn part(
        &self,
        manifest: &Manifest,
        fill: &dyn Fn(&Path, &Path) -> Result<(), StageError>,
    ) -> Result<PathBuf, StageError> {
        let key = manifest.key();
        let found = match self.store.lookup(&key).map_err(failed)? {
            Lookup::Whole(entry) if !self.force => Begun::Cached(entry),
            _ => {
                let mut waiting = |holder: &str| self.progress.note(&format!("waits for {holder}"));
                self.store.begin(&key, self.force, self.interrupt, &mut waiting).map_err(failed)?
            }
        };
        let entry = match found {
            Begun::Cached(entry) => entry,
            Begun::Work(work) => {
                let begun = Instant::now();
                fill(&work.output(), &work.checkpoint())?;
                let made = Made {
                    kind: self.kind,
                    seconds: begun.elapsed().as_secs_f64(),
                    peak_bytes: memory::peak_bytes(),
                    finished: clock::now(),
                    program: env!("CARGO_PKG_VERSION").to_owned(),
                };
                work.commit(manifest, made).map_err(failed)?
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
