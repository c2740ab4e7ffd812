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
}

/// The inputs of one stage, as they were when it began.
pub(super) struct Inputs<'a> {
    reader: Reader<'a>,
    manifest: &'a Manifest,
    files: BTreeMap<String, (PathBuf, Tree)>,
}

impl<'a> Inputs<'a> {
    /// Lists the files, whose digests are known from planning.
    pub(super) fn new(reader: Reader<'a>, manifest: &'a Manifest) -> Result<Self, StageError> {
        let mut files = BTreeMap::new();
        for (name, path) in reader.files.iter().filter_map(|(name, file)| Some((name, file.path()?))) {
            let tree = reader.store.tree_of(path).map_err(unread(path))?;
            files.insert(name.clone(), (path.to_owned(), tree));
        }
        Ok(Self { reader, manifest, files })
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
        for (name, (path, before)) in &self.files {
            let now = store.tree_of(path).map_err(unread(path))?;
            if let Some((inside, ..)) = before.first_difference(&now) {
                return changed(name, if inside.is_empty() { path.clone() } else { path.join(inside) });
            }
        }
        // It changed between the planning and the beginning of the stage.
        let (name, (path, _)) = self.files.first_key_value().expect("BUG: a manifest without files changed");
        changed(name, path.clone())
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
