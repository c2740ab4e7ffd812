//! Resolves a name to a commit, and downloads the files of a commit into the hub's cache.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use hf_hub::{Repo, RepoType};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::environment::Environment;
use super::transfer::{Failure, Transfer};
use super::{HubError, Pinned};
use crate::base::{Interrupt, Progress, files};
use crate::model::error::ModelError;
use crate::model::files::contents::{self, ModelFile};
use crate::model::files::{ModelDirectory, Weights};

/// Bytes per unit of progress.
const MEGABYTE: u64 = 1_000_000;

/// The hub's answer for a repository at a revision.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

/// The current commit of a revision. A revision that is a commit already is returned unchanged; otherwise the hub is
/// asked, or its cache if the hub cannot be reached.
pub fn pin(id: &str, revision: &str) -> Result<Pinned, HubError> {
    let pinned = |commit: String, offline| Pinned {
        id: id.to_owned(),
        revision: revision.to_owned(),
        commit,
        offline,
    };
    if is_commit(revision) {
        return Ok(pinned(revision.to_owned(), None));
    }
    let environment = Environment::read(id)?;
    let reason = match environment.listing(id, revision) {
        Ok(listing) => return Ok(pinned(listing.sha, None)),
        Err(Failure::Unreachable(reason)) => reason,
        Err(failure) => return Err(environment.error(failure, id, revision, "the list of files")),
    };
    let reference = environment.folder(id).join("refs").join(revision);
    match std::fs::read_to_string(reference).map(|text| text.trim().to_owned()) {
        Ok(commit) if is_commit(&commit) => Ok(pinned(commit, Some(reason))),
        _ => Err(environment.error(Failure::Unreachable(reason), id, revision, "the commit")),
    }
}

/// Downloads the missing files of a model and returns its folder. Configurations and vocabularies come first, so that
/// an unusable model is refused before gigabytes of weights are downloaded.
pub fn download(
    pinned: &Pinned,
    variant: Option<&str>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<PathBuf, HubError> {
    let is_enough = |snapshot: &Path| is_complete(snapshot, variant);
    let download = match Download::begin(pinned, is_enough, progress, interrupt)? {
        ControlFlow::Break(snapshot) => return Ok(snapshot),
        ControlFlow::Continue(download) => download,
    };
    let paths = download.paths();
    if !paths.iter().any(|path| path == "unet/config.json" || path == "config.json") {
        return Err(HubError::NoModel { id: pinned.id.clone() });
    }
    if download.sizes.contains_key(contents::INDEX) {
        download.get(&[contents::INDEX], 0)?;
    }
    let chosen = contents::choose(&paths, index(&download.snapshot)?.as_ref(), variant)?;
    download.fetch(chosen.iter().map(|file| file.from.as_str()), || {
        ModelDirectory::open(&download.snapshot)?.unet_config()?;
        Ok(())
    })?;
    download.finish()
}

/// Downloads the missing files of a CLIP model, with or without its weights, and returns its folder.
pub fn download_scorer(
    pinned: &Pinned,
    weights: bool,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<PathBuf, HubError> {
    // What is missing is named when the scorer is opened.
    let download = match Download::begin(pinned, |snapshot| Ok(snapshot.is_dir()), progress, interrupt)? {
        ControlFlow::Break(snapshot) => return Ok(snapshot),
        ControlFlow::Continue(download) => download,
    };
    let paths = download.paths();
    let chosen = contents::choose_scorer(&paths, weights);
    if weights && !chosen.iter().any(|name| name.ends_with(".safetensors")) {
        let is_checkpoint =
            |name: &&String| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end));
        return Err(HubError::NoWeights {
            id: pinned.id.clone(),
            with: paths.iter().find(is_checkpoint).cloned(),
        });
    }
    download.fetch(chosen.iter().map(String::as_str), || Ok(()))?;
    download.finish()
}

/// A repository that is being downloaded.
struct Download<'a> {
    environment: Environment,
    pinned: &'a Pinned,
    /// The target folder.
    snapshot: PathBuf,
    /// The repository's files and their sizes in bytes.
    sizes: BTreeMap<String, Option<u64>>,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
}

impl<'a> Download<'a> {
    /// Asks the hub for the files of a commit. Breaks with the folder in the hub's cache if the hub cannot be reached and
    /// `is_enough` says that the folder can be used without it.
    fn begin(
        pinned: &'a Pinned,
        is_enough: impl FnOnce(&Path) -> Result<bool, HubError>,
        progress: &'a dyn Progress,
        interrupt: &'a Interrupt,
    ) -> Result<ControlFlow<PathBuf, Self>, HubError> {
        let Pinned { id, revision, commit, .. } = pinned;
        let environment = Environment::read(id)?;
        let snapshot = environment.folder(id).join("snapshots").join(commit);
        let listing = match environment.listing(id, commit) {
            Ok(listing) => listing,
            Err(Failure::Unreachable(reason)) if is_enough(&snapshot)? => {
                progress.note(&format!("using the files of {id} in the hub's cache ({reason})"));
                return Ok(ControlFlow::Break(snapshot));
            }
            Err(failure) => return Err(environment.error(failure, id, revision, "some files")),
        };
        let sizes = listing.siblings.into_iter().map(|file| (file.rfilename, file.size)).collect();
        Ok(ControlFlow::Continue(Self { environment, pinned, snapshot, sizes, progress, interrupt }))
    }

    /// The names of the repository's files.
    fn paths(&self) -> Vec<String> {
        self.sizes.keys().cloned().collect()
    }

    /// The folder, after the last file.
    fn finish(self) -> Result<PathBuf, HubError> {
        if self.pinned.revision != self.pinned.commit {
            self.remember_revision()?;
        }
        Ok(self.snapshot)
    }

    /// Those of the files that are still missing, weights last, after a check of the others.
    fn fetch<'f>(
        &self,
        chosen: impl Iterator<Item = &'f str>,
        check: impl FnOnce() -> Result<(), HubError>,
    ) -> Result<(), HubError> {
        let (weights, small): (Vec<_>, Vec<_>) = chosen
            .filter(|name| !self.snapshot.join(name).exists())
            .partition(|name| name.ends_with(".safetensors"));
        self.get(&small, 0)?;
        check()?;
        let bytes: u64 = weights.iter().filter_map(|&name| self.sizes.get(name).copied().flatten()).sum();
        let total = bytes.div_ceil(MEGABYTE);
        if !weights.is_empty() {
            self.progress.length(total, "MB");
        }
        self.get(&weights, total)
    }

    /// Downloads files by name. `total` is their size in megabytes for the progress display, or 0 to show none.
    fn get(&self, names: &[&str], total: u64) -> Result<(), HubError> {
        let Pinned { id, revision, commit, .. } = self.pinned;
        let repository = repository(id, commit);
        let mut before = 0;
        for &name in names {
            let size = self.sizes.get(name).copied().flatten();
            let report = |done: u64| {
                if total > 0 {
                    self.progress.position(((before + done) / MEGABYTE).min(total));
                }
            };
            let Environment { api, cache, .. } = &self.environment;
            let transfer = Transfer { api, cache, repository: &repository };
            transfer
                .file(name, &self.snapshot.join(name), size, &report, self.interrupt)?
                .map_err(|failure| self.environment.error(failure, id, revision, name))?;
            before += size.unwrap_or(0);
        }
        Ok(())
    }

    /// Records in the hub's cache which commit the revision refers to.
    fn remember_revision(&self) -> Result<(), HubError> {
        let Pinned { id, revision, commit, .. } = self.pinned;
        let reference = self.environment.cache.repo(repository(id, revision)).create_ref(commit);
        let path = || self.environment.folder(id).join("refs");
        reference.map_err(|source| HubError::File { path: path(), source })
    }
}

impl Environment {
    fn listing(&self, id: &str, revision: &str) -> Result<Listing, Failure> {
        if let Some(reason) = &self.offline {
            return Err(Failure::Unreachable(reason.clone()));
        }
        // The hub returns sizes only if blobs are requested.
        let request = self.api.repo(repository(id, revision)).info_request().query("blobs", "true");
        let mut response = request.call().map_err(|error| Failure::of_request(&error))?;
        let listing: Listing =
            response.body_mut().read_json().map_err(|error| Failure::of_request(&error))?;
        match is_commit(&listing.sha) {
            true => Ok(listing),
            false => Err(Failure::Other(format!("the hub calls its commit `{}`", listing.sha))),
        }
    }

    /// The repository's folder in the hub's cache.
    fn folder(&self, id: &str) -> PathBuf {
        self.cache.path().join(repository(id, "main").folder_name())
    }

    fn error(&self, failure: Failure, id: &str, revision: &str, what: &str) -> HubError {
        let (id, what, address) = (id.to_owned(), what.to_owned(), format!("{}/{id}", self.endpoint));
        let revision = revision.to_owned();
        match failure {
            Failure::Unreachable(reason) => {
                HubError::Offline { id, revision, what, reason, cache: self.cache.path().clone() }
            }
            Failure::Status(404) => HubError::NotFound { id, revision, address },
            Failure::Status(status @ (401 | 403)) => HubError::Refused { id, status, who: self.who, address },
            Failure::Status(status) => HubError::Download { id, what, reason: format!("status {status}") },
            Failure::Other(reason) => HubError::Download { id, what, reason },
        }
    }
}

fn repository(id: &str, revision: &str) -> Repo {
    Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned())
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn index(snapshot: &Path) -> Result<Option<Map<String, Value>>, HubError> {
    let path = snapshot.join(contents::INDEX);
    match path.is_file() {
        true => files::read_json(&path).map(Some).map_err(|source| ModelError::Config { source }.into()),
        false => Ok(None),
    }
}

/// For a snapshot that cannot be compared with the hub's file list: whether it has every part that its index names, and
/// complete weights of the requested precision for each configuration.
fn is_complete(snapshot: &Path, variant: Option<&str>) -> Result<bool, HubError> {
    let Ok(paths) = contents::list(snapshot) else { return Ok(false) };
    let index = index(snapshot)?;
    let Ok(chosen) = contents::choose(&paths, index.as_ref(), variant) else { return Ok(false) };
    let precision = variant.is_some() || chosen.iter().all(|file| file.from == file.to);
    let named = |(part, class): (&String, &Value)| {
        part.starts_with('_')
            || class[0].is_null()
            || paths.iter().any(|path| path.starts_with(&format!("{part}/")))
    };
    let weighted = |config: &ModelFile| {
        let (part, name) = config.from.rsplit_once('/').unwrap_or(("", &config.from));
        let opens = |file: &ModelFile| Weights::open(&snapshot.join(&file.from)).is_ok();
        name != "config.json" || contents::weights_of(&chosen, part).is_some_and(opens)
    };
    Ok(precision && index.iter().flatten().all(named) && chosen.iter().all(weighted))
}
