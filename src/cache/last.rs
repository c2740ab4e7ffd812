//! What each stage of each pipeline depended on in its last run, kept to explain the next one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::memo::write_hint;
use super::{Store, Tree};
use crate::base::{Digest, Manifest, StageId, sealed};

/// A stage when it was last looked up in a run.
#[derive(PartialEq, Serialize, Deserialize)]
struct Last {
    pipeline: String,
    stage: StageId,
    manifest: Manifest,
    /// For each parameter that names a folder, the digest of the list of its files, which is a file of its own: stages of
    /// a sweep read the same folders.
    #[serde(default)]
    folders: BTreeMap<String, Digest>,
}

/// The files of a folder.
#[derive(Serialize, Deserialize)]
struct Folder {
    files: Tree,
}

impl Store {
    /// The manifest that this stage had in the last run of this pipeline.
    pub fn last_manifest(&self, pipeline: &str, stage: &StageId) -> Option<Manifest> {
        Some(self.last(pipeline, stage)?.manifest)
    }

    /// The files of the folder that this parameter of the stage named in the last run of this pipeline.
    pub fn last_folder(&self, pipeline: &str, stage: &StageId, parameter: &str) -> Option<Tree> {
        let digest = *self.last(pipeline, stage)?.folders.get(parameter)?;
        let folder: Folder = sealed::read(&self.folder_file(&digest)).ok()?;
        (folder.files.digest() == digest).then_some(folder.files)
    }

    /// Keeps a stage's manifest for the explanation of the next run, and the files of the folders that it read, which are
    /// asked for only if something changed. It is only information, so errors are ignored.
    pub fn remember(
        &self,
        pipeline: &str,
        stage: &StageId,
        manifest: &Manifest,
        folders: impl FnOnce() -> BTreeMap<String, Tree>,
    ) {
        if self.last_manifest(pipeline, stage).as_ref() == Some(manifest) {
            return;
        }
        // A single file has no name to tell.
        let folders: BTreeMap<_, _> =
            folders().into_iter().filter(|(_, tree)| tree.files().len() > 1).collect();
        for (parameter, files) in &folders {
            if self.last_folder(pipeline, stage, parameter).as_ref() != Some(files) {
                let _ = write_hint(&self.folder_file(&files.digest()), &Folder { files: files.clone() });
            }
        }
        let last = Last {
            pipeline: pipeline.to_owned(),
            stage: stage.clone(),
            manifest: manifest.clone(),
            folders: folders.iter().map(|(name, tree)| (name.clone(), tree.digest())).collect(),
        };
        let _ = write_hint(&self.last_file(pipeline, stage), &last);
    }

    fn last(&self, pipeline: &str, stage: &StageId) -> Option<Last> {
        sealed::read(&self.last_file(pipeline, stage)).ok()
    }

    fn last_file(&self, pipeline: &str, stage: &StageId) -> PathBuf {
        let name = Digest::of(format!("{pipeline}\0{stage}").as_bytes());
        self.place("last").join(format!("{name}.json"))
    }

    fn folder_file(&self, digest: &Digest) -> PathBuf {
        self.place("last").join(format!("folder-{digest}.json"))
    }
}
