//! The files that stages read: found on disk or pinned to a commit of the hub, then hashed for the key.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use super::{PlanError, ResolvedPipeline, manifest};
use crate::backend::DeviceClass;
use crate::base::{Digest, FileError, Interrupted, Manifest};
use crate::cache::{Store, Tree};
use crate::config::{ConfigError, ConfigErrorKind};
use crate::model::files::hub;
use crate::stage::{FileInput, ResolvedFile};

/// The files that are folders, or single files, on this machine, with the digests of what is in them. What cannot be
/// read is left out.
pub fn folders(files: &BTreeMap<String, ResolvedFile>, store: &Store) -> BTreeMap<String, Tree> {
    let tree =
        |(name, file): (&String, &ResolvedFile)| Some((name.clone(), store.tree_of(file.path()?).ok()?));
    files.iter().filter_map(tree).collect()
}

impl ResolvedPipeline {
    /// The files that a stage reads, by the names of [`Stage::files`](crate::stage::Stage::files): local files, which
    /// must exist, or repositories of the hub, for which the hub may be asked which commit a revision is.
    pub fn files(&self, stage: usize) -> Result<BTreeMap<String, ResolvedFile>, ConfigError> {
        let resolve = |file: FileInput<'_>| {
            let found = self.find(stage, &file).map_err(|kind| self.error(kind, stage, file.name))?;
            Ok((file.name.to_owned(), found))
        };
        self.stages[stage].stage.files().into_iter().map(resolve).collect()
    }

    fn find(&self, stage: usize, file: &FileInput<'_>) -> Result<ResolvedFile, ConfigErrorKind> {
        if file.path.as_os_str().is_empty() {
            let (message, within) = (
                format!("`{}` is empty; it must be the path of a file or folder", file.name),
                format!("stage `{}`", self.stages[stage].id),
            );
            return Err(ConfigErrorKind::BadValue { message, within, help: None });
        }
        let path = self.folder().join(file.path);
        let id = file.path.to_str().filter(|path| hub::is_id(path));
        match file.revision.zip(id) {
            _ if path.exists() => Ok(ResolvedFile::Path(path)),
            Some((revision, id)) => hub::pin(id, revision)
                .map(ResolvedFile::Repository)
                .map_err(|error| ConfigErrorKind::Hub(Box::new(error))),
            None => {
                let folder = fs::canonicalize(self.folder()).unwrap_or_else(|_| self.folder().to_owned());
                let (stage, parameter) = (self.stages[stage].id.to_string(), file.name.to_owned());
                Err(ConfigErrorKind::MissingFile { stage, parameter, path: file.path.to_owned(), folder })
            }
        }
    }

    /// Everything that determines the bytes of a stage's artefact, with the digests of its inputs and the contents of
    /// its files.
    pub fn manifest(
        &self,
        stage: usize,
        device: DeviceClass,
        inputs: &BTreeMap<String, Digest>,
        files: &BTreeMap<String, ResolvedFile>,
        store: &Store,
    ) -> Result<Manifest, PlanError> {
        let planned = &self.stages[stage];
        let contents = |(parameter, file): (&String, &ResolvedFile)| {
            let contents = file.contents(|path| {
                store.tree_of(path).map(|tree| tree.digest()).map_err(|source| match source.kind() {
                    io::ErrorKind::Interrupted => Interrupted.into(),
                    _ => PlanError::Input {
                        stage: planned.id.clone(),
                        parameter: parameter.clone(),
                        source: FileError::at(path)(source),
                    },
                })
            })?;
            Ok((parameter.clone(), contents))
        };
        let contents = files.iter().map(contents).collect::<Result<_, PlanError>>()?;
        Ok(manifest(planned, device, inputs, &contents))
    }
}
