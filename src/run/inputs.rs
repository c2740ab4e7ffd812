//! Inputs are checked again after a stage has read them: what changed meanwhile must not end up under the key of what was
//! there before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

use crate::backend::DeviceClass;
use crate::base::{Artefact, FileError, Manifest};
use crate::cache::{Store, Tree};
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
            let tree = reader.store.tree_of(path).map_err(FileError::at(path)).map_err(input)?;
            files.insert(name.clone(), (path.to_owned(), tree));
        }
        Ok(Self { reader, manifest, files })
    }

    /// Fails if an input is no longer what the key says. Only what has another size, time or inode is read again.
    pub(super) fn check(&self) -> Result<(), StageError> {
        for (name, artefact) in self.reader.artefacts {
            let found =
                self.reader.store.files_of(artefact).map_err(FileError::at(&artefact.path)).map_err(input)?;
            if found.digest() != artefact.digest {
                return Err(changed(name, &artefact.path));
            }
        }
        if self.reader.manifest().map_err(input)? == *self.manifest {
            return Ok(());
        }
        for (name, (path, before)) in &self.files {
            let now = self.reader.store.tree_of(path).map_err(FileError::at(path)).map_err(input)?;
            if let Some((inside, ..)) = before.first_difference(&now) {
                return Err(changed(name, &if inside.is_empty() { path.clone() } else { path.join(inside) }));
            }
        }
        // It changed between the planning and the beginning of the stage.
        let (name, (path, _)) = self.files.first_key_value().expect("BUG: a manifest without files changed");
        Err(changed(name, path))
    }
}

fn changed(name: &str, path: &Path) -> StageError {
    input(InputChanged { input: name.to_owned(), path: path.to_owned() })
}

fn input(error: impl Diagnostic + Send + Sync + 'static) -> StageError {
    StageError::Input(Box::new(error))
}
