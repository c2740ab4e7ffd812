//! The files that stages read: found on disk or pinned to a commit of the hub, then hashed for the key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use super::{PlanError, ResolvedPipeline, manifest};
use crate::backend::{DeviceClass, Random};
use crate::base::{ArtefactKind, Digest, FileError, Interrupted, Manifest};
use crate::cache::{Store, Tree};
use crate::config::{ConfigError, ConfigErrorKind};
use crate::model::UNetConfig;
use crate::model::files::hub::{self, HubError};
use crate::stage::{FileInput, MissingFile, ResolvedFile};

impl ResolvedPipeline {
    /// The files that a stage reads, by the names of [`Stage::files`](crate::stage::Stage::files): local files, which
    /// must exist, or repositories of the hub, for which the hub may be asked which commit a revision is.
    pub fn files(&self, stage: usize) -> Result<BTreeMap<String, ResolvedFile>, ConfigError> {
        let resolve = |file: FileInput<'_>| {
            let found = self.find(stage, &file).map_err(|kind| self.error(kind, stage, &file.name))?;
            Ok((file.name.into_owned(), found))
        };
        self.stages[stage].stage.files().into_iter().map(resolve).collect()
    }

    /// Checks the files of some stages, each with what [`ResolvedPipeline::files`] found. Branches of a sweep that read
    /// the same files in the same way are checked once.
    pub fn check_files(
        &self,
        files: &BTreeMap<usize, BTreeMap<String, ResolvedFile>>,
    ) -> Result<(), PlanError> {
        let mut checked = BTreeSet::new();
        for (&index, files) in files {
            let planned = &self.stages[index];
            let mut described = Manifest::default();
            planned.stage.describe(&mut described);
            if !checked.insert((planned.origin.clone(), described.key(), format!("{files:?}"))) {
                continue;
            }
            planned.stage.check_files(files).map_err(PlanError::unfit(&planned.id))?;
        }
        self.check_models(files)
    }

    /// Checks every stage with the models among its inputs, as far as they are known, so that the work before a stage that
    /// cannot use them is not lost. Branches of a sweep that use the same model in the same way are checked once.
    fn check_models(&self, files: &BTreeMap<usize, BTreeMap<String, ResolvedFile>>) -> Result<(), PlanError> {
        let mut unets: BTreeMap<usize, UNetConfig> = BTreeMap::new();
        // The stage whose U-Net a stage makes: a pruned or retrained one reads what the one it was made from reads.
        let mut sources: BTreeMap<usize, usize> = BTreeMap::new();
        let mut checked = BTreeSet::new();
        for &index in self.graph.order() {
            let (Some(files), planned) = (files.get(&index), &self.stages[index]) else { continue };
            let inputs: BTreeSet<usize> =
                self.graph.inputs(index).into_iter().map(|(_, from)| from).collect();
            let read: Vec<usize> = inputs.iter().filter_map(|from| sources.get(from).copied()).collect();
            let mut described = Manifest::default();
            planned.stage.describe(&mut described);
            if checked.insert((planned.origin.clone(), described.key(), read.clone())) {
                let mut read = read.iter().map(|source| &unets[source]);
                read.try_for_each(|unet| planned.stage.check_unet(unet))
                    .map_err(PlanError::unfit(&planned.id))?;
            }
            if planned.stage.info().output != ArtefactKind::Model {
                continue;
            }
            match planned.stage.unet_of_files(files) {
                Some(unet) => {
                    unets.insert(index, unet);
                    sources.insert(index, index);
                }
                None => sources.extend(read.first().map(|&source| (index, source))),
            }
        }
        Ok(())
    }

    /// Fails, with a list, if stages read what is not on this machine and cannot be downloaded.
    pub fn check_there(
        &self,
        files: &BTreeMap<usize, BTreeMap<String, ResolvedFile>>,
    ) -> Result<(), PlanError> {
        let mut missing: BTreeMap<String, String> = BTreeMap::new();
        for (&index, files) in files {
            for (parameter, file) in files {
                let Some(file) = file.missing() else { continue };
                let stage = &self.stages[index].id;
                missing.entry(file.to_string()).or_insert_with(|| format!("`{parameter}` of `{stage}`"));
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(PlanError::Missing { files: missing.into_iter().collect() }),
        }
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
            Some((revision, id)) => match hub::pin(id, revision) {
                Ok(pinned) => Ok(ResolvedFile::Repository(pinned)),
                Err(HubError::Offline { reason, cache, .. }) => {
                    let from = format!(
                        "where there is a network, run `hf download {id} --revision {revision}` and copy its folder to {}{}",
                        cache.display(),
                        file.from.map(|from| format!(" ({from})")).unwrap_or_default()
                    );
                    let reason = format!("the hub cannot be reached ({reason}), and its cache has no commit");
                    Ok(ResolvedFile::Missing(MissingFile { what: id.to_owned(), reason, from }))
                }
                Err(error) => Err(ConfigErrorKind::Hub(Box::new(error))),
            },
            None if file.from.is_some() => Ok(ResolvedFile::Missing(MissingFile {
                what: file.path.display().to_string(),
                reason: "it does not exist".to_owned(),
                from: file.from.unwrap_or_default().to_owned(),
            })),
            None => {
                let folder = fs::canonicalize(self.folder()).unwrap_or_else(|_| self.folder().to_owned());
                let (stage, parameter) = (self.stages[stage].id.to_string(), file.name.to_string());
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
        let contents = |input: FileInput<'_>| {
            let digest = |path: &Path| self.tree(stage, &input, path, store).map(|tree| tree.digest());
            let contents = files[&*input.name].contents(digest)?;
            Ok((input.name.into_owned(), contents))
        };
        let contents = planned.stage.files().into_iter().map(contents).collect::<Result<_, PlanError>>()?;
        Ok(manifest(planned, device, inputs, &contents))
    }

    /// What a stage reads of the files that are on this machine, with digests, to explain the next run. What cannot be
    /// read is left out.
    pub fn trees(
        &self,
        stage: usize,
        files: &BTreeMap<String, ResolvedFile>,
        store: &Store,
    ) -> BTreeMap<String, Tree> {
        let tree = |input: FileInput<'_>| {
            let path = files.get(&*input.name)?.path()?;
            let tree = self.tree(stage, &input, path, store).ok()?;
            Some((input.name.into_owned(), tree))
        };
        self.stages[stage].stage.files().into_iter().filter_map(tree).collect()
    }

    /// What a stage reads of `path`.
    fn tree(
        &self,
        stage: usize,
        input: &FileInput<'_>,
        path: &Path,
        store: &Store,
    ) -> Result<Tree, PlanError> {
        let planned = &self.stages[stage];
        let id = &planned.id;
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::Interrupted => Interrupted.into(),
            _ => PlanError::Input {
                stage: id.clone(),
                parameter: input.name.to_string(),
                source: FileError::at(path)(source),
            },
        };
        let random = Random::new(planned.seed, planned.origin.as_str());
        let excerpt = (input.reader)(path, &random).map_err(PlanError::unfit(id))?;
        let files = match excerpt.files {
            None => store.tree_of(path),
            Some(names) => store.named_files_of(path, &names),
        };
        Ok(files.map_err(unreadable)?.with_texts(excerpt.texts))
    }
}
