//! Inputs are checked again after a stage has read them: what changed meanwhile must not end up under the key of what was
//! there before.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

use crate::backend::DeviceClass;
use crate::base::{Artefact, FileError, Interrupted, Manifest};
use crate::cache::{PendingArtefact, Store, Tree};
use crate::plan::{PlanError, ResolvedPipeline};
use crate::stage::{ResolvedFile, StageError};

/// An input changed while a stage used it (exit code 4).
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("`{input}` changed while the stage ran: {}", path.display())]
#[diagnostic(code(run::input_changed), help("nothing of the stage was kept: run the same command again"))]
struct InputChanged {
    /// The parameter that names it.
    input: String,
    /// The file that changed.
    path: PathBuf,
}

/// A stage and what it reads.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) pipeline: &'a ResolvedPipeline,
    pub(super) index: usize,
    pub(super) class: DeviceClass,
    pub(super) store: &'a Store,
    pub(super) artefacts: &'a BTreeMap<String, Artefact>,
    pub(super) files: &'a BTreeMap<String, ResolvedFile>,
}

impl Reader<'_> {
    /// What the stage's bytes depend on.
    pub(super) fn manifest(&self) -> Result<Manifest, PlanError> {
        let digests = self.artefacts.iter().map(|(name, artefact)| (name.clone(), artefact.digest)).collect();
        self.pipeline.manifest(self.index, self.class, &digests, self.files, self.store)
    }

    /// What it reads of its files.
    fn trees(&self) -> BTreeMap<String, Tree> {
        self.pipeline.trees(self.index, self.files, self.store)
    }
}

/// The inputs of one stage, as they were when it began.
pub(super) struct Inputs<'a> {
    reader: Reader<'a>,
    manifest: &'a Manifest,
    files: BTreeMap<String, Tree>,
}

impl<'a> Inputs<'a> {
    /// Lists the files, whose digests are known from planning.
    pub(super) fn new(reader: Reader<'a>, manifest: &'a Manifest) -> Self {
        Self { reader, manifest, files: reader.trees() }
    }

    /// Checks the inputs when an attempt is over, however it ended. If one is no longer what the key says, that is an error,
    /// and the attempt's checkpoint is removed: it holds what was computed from other bytes.
    pub(super) fn check(&self, pending: &PendingArtefact<'_>) -> Result<(), StageError> {
        let Some(changed) = self.changed()? else { return Ok(()) };
        pending.forget()?;
        Err(input(changed))
    }

    /// An input that is no longer what the key says. Only what has another size, time or inode is read again.
    fn changed(&self) -> Result<Option<InputChanged>, StageError> {
        let Reader { store, artefacts, .. } = self.reader;
        let changed = |name: &String, path| Ok(Some(InputChanged { input: name.clone(), path }));
        for (name, artefact) in artefacts {
            let found = store.files_of(artefact).map_err(unread(&artefact.path))?;
            if found.digest() != artefact.digest {
                return changed(name, artefact.path.clone());
            }
        }
        if self.reader.manifest().map_err(unplanned)? == *self.manifest {
            return Ok(None);
        }
        let now = self.reader.trees();
        let paths = self.reader.files.iter().filter_map(|(name, file)| Some((name, file.path()?)));
        for (name, path) in paths.clone() {
            match (self.files.get(name), now.get(name)) {
                (Some(before), Some(now)) => {
                    if let Some((inside, ..)) = before.first_difference(now) {
                        let path = if inside.is_empty() { path.to_owned() } else { path.join(inside) };
                        return changed(name, path);
                    }
                }
                _ => return changed(name, path.to_owned()),
            }
        }
        // It changed between the planning and the beginning of the stage.
        let (name, path) = paths.clone().next().expect("BUG: a manifest without files changed");
        changed(name, path.to_owned())
    }
}

/// For `map_err`: a file that cannot be read.
fn unread(path: &Path) -> impl FnOnce(io::Error) -> StageError {
    let named = FileError::at(path);
    |error| match error.kind() {
        io::ErrorKind::Interrupted => Interrupted.into(),
        _ => input(named(error)),
    }
}

fn unplanned(error: PlanError) -> StageError {
    match error {
        PlanError::Interrupted(interrupted) => interrupted.into(),
        other => input(other),
    }
}

fn input(error: impl Diagnostic + Send + Sync + 'static) -> StageError {
    StageError::Input(Box::new(error))
}
