//! Which artefacts of a cache runs and pins need. A run tells its cache where its folder is, so that a collection started
//! from another project knows it too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::RunRecord;
use crate::base::Digest;
use crate::cache::{CacheError, Needed, Place, Root, RootKind, Store};

/// Tells the cache of a run that begins. Its keys are read from its folder as long as that can be read.
pub fn begin(store: &Store, folder: &Path) {
    store.work_on(folder);
    let known = store.roots().unwrap_or_default();
    if !known.iter().any(|root| root.kind == RootKind::Run && root.name == folder) {
        let _ = store.add_root(&Root::new(RootKind::Run, folder, Vec::new()));
    }
}

/// Tells the cache what a run that ended needs.
pub(super) fn end(store: &Store, folder: &Path, record: &RunRecord) {
    // Where it cannot be written, the record in the folder still says it.
    let _ = store.add_root(&Root::new(RootKind::Run, folder, keys(record)));
}

/// The keys of a run's stages and of their parts.
pub fn keys(record: &RunRecord) -> Vec<Digest> {
    let mut keys: Vec<Digest> = record.stages.iter().filter_map(|stage| stage.key).collect();
    let artefacts = record.stages.iter().filter_map(|stage| stage.artefact.as_ref());
    keys.extend(artefacts.flat_map(|artefact| artefact.parts.iter().copied()));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What runs and pins need of a cache. Runs are those that the cache knows and that still exist, and those in `runs`.
pub fn needed(store: &Store, runs: &Path) -> Result<Needed, CacheError> {
    needed_without(store, runs, &[])
}

/// The same as if the runs in some folders, by their full paths, did not exist.
pub fn needed_without(store: &Store, runs: &Path, without: &[PathBuf]) -> Result<Needed, CacheError> {
    let mut needed = Needed::default();
    let mut folders: BTreeSet<PathBuf> = fs::read_dir(runs)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::canonicalize(entry.path()).ok())
        .collect();
    for root in store.roots()? {
        match root.kind {
            RootKind::Pin => root.keys.iter().for_each(|key| needed.add(*key, &pin(&root.name))),
            RootKind::Run if is_gone(&root.name) || without.contains(&root.name) => {}
            RootKind::Run => {
                let name = root.name.display().to_string();
                root.keys.iter().for_each(|key| needed.add(*key, &name));
                folders.insert(root.name);
            }
        }
    }
    for folder in folders.into_iter().filter(|folder| !without.contains(folder)) {
        if let Ok(record) = RunRecord::read(&folder) {
            let name = folder.display().to_string();
            keys(&record).into_iter().for_each(|key| needed.add(key, &name));
            // The links of the run folder must lead somewhere even if the key has other bytes by now.
            let artefacts = record.stages.iter().filter_map(|stage| stage.artefact.as_ref());
            let ours = artefacts
                .filter(|artefact| Place::of(&artefact.path).is_some_and(|place| place.root == store.root()));
            ours.for_each(|artefact| needed.add(artefact.digest, &name));
        }
    }
    Ok(needed)
}

/// Forgets the runs whose folders were removed, but none that has just begun and has no record yet.
pub fn forget_gone(store: &Store) -> Result<(), CacheError> {
    let roots = store.roots()?.into_iter();
    for root in roots.filter(|root| root.kind == RootKind::Run && is_gone(&root.name)) {
        if !store.is_worked_on(&root.name)? {
            store.remove_root(root.kind, &root.name)?;
        }
    }
    Ok(())
}

/// Whether a run folder was removed. One whose disk is not mounted was not.
fn is_gone(folder: &Path) -> bool {
    let parent = folder.parent().is_some_and(Path::is_dir);
    parent && !folder.join("run.json").exists()
}

fn pin(name: &Path) -> String {
    format!("pin {}", name.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_has_just_begun_is_not_forgotten_and_one_that_was_killed_then_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = folder.path().join("runs/new");
        fs::create_dir_all(&run).expect("writable");
        let open = || Store::open(&folder.path().join("cache")).expect("a cache");
        let (running, other) = (open(), open());
        begin(&running, &run);
        forget_gone(&other).expect("writable");
        assert_eq!(other.roots().expect("readable").len(), 1, "its record is not written yet");
        drop(running);
        forget_gone(&other).expect("writable");
        assert_eq!(other.roots().expect("readable"), []);
    }
}
