//! What each stage of each pipeline depended on in its last run, kept to explain the next one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Store, Tree};
use crate::base::{Digest, Manifest, StageId, files};

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

impl Store {
    /// The manifest that this stage had in the last run of this pipeline.
    pub fn last_manifest(&self, pipeline: &str, stage: &StageId) -> Option<Manifest> {
        Some(self.last(pipeline, stage)?.manifest)
    }

    /// The files of the folder that this parameter of the stage named in the last run of this pipeline.
    pub fn last_folder(&self, pipeline: &str, stage: &StageId, parameter: &str) -> Option<Tree> {
        let digest = *self.last(pipeline, stage)?.folders.get(parameter)?;
        let tree: Tree = files::read_json(&self.folder_file(&digest)).ok()?;
        (tree.digest() == digest).then_some(tree)
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
        for tree in folders.values() {
            let path = self.folder_file(&tree.digest());
            if let Ok(bytes) = serde_json::to_vec(tree)
                && !path.exists()
            {
                let _ = files::replace(&path, &bytes);
            }
        }
        let last = Last {
            pipeline: pipeline.to_owned(),
            stage: stage.clone(),
            manifest: manifest.clone(),
            folders: folders.iter().map(|(name, tree)| (name.clone(), tree.digest())).collect(),
        };
        if let Ok(bytes) = serde_json::to_vec(&last) {
            let _ = files::replace(&self.last_file(pipeline, stage), &bytes);
        }
    }

    fn last(&self, pipeline: &str, stage: &StageId) -> Option<Last> {
        files::read_json(&self.last_file(pipeline, stage)).ok()
    }

    fn last_file(&self, pipeline: &str, stage: &StageId) -> PathBuf {
        let name = Digest::of(format!("{pipeline}\0{stage}").as_bytes());
        self.place("last").join(format!("{name}.json"))
    }

    fn folder_file(&self, digest: &Digest) -> PathBuf {
        self.place("last").join(format!("folder-{digest}.json"))
    }
}
