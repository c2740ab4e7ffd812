//! The guarantees of the cache, one test each.

#[cfg(feature = "remote")]
mod bucket;
mod damage;
mod gc;
mod remote;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::begin::Begun;
use super::tree::Hidden;
use super::*;
use crate::base::ArtefactKind;
use crate::base::{Digest, Interrupt, Manifest, Watch, clock};

struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn store(&self) -> Store {
        Store::open(&self.root()).expect("a cache of this format")
    }

    /// All files below the cache but locks and memos, by path.
    fn files(&self) -> Vec<String> {
        let tree = Tree::read(&self.root(), Hidden::Left, &mut |_, _, _| Ok(Digest::of(b"")));
        let paths = tree.map(|tree| tree.files().iter().map(|f| f.path.clone()).collect::<Vec<_>>());
        let mut paths = paths.unwrap_or_default();
        paths.retain(|path| !path.starts_with("v1/leases") && !path.starts_with("v1/memo"));
        paths
    }
}

fn manifest(name: &str) -> Manifest {
    let mut manifest = Manifest::default();
    manifest.field("stage", name);
    manifest
}

fn made() -> Made {
    Made {
        kind: ArtefactKind::Selection,
        seconds: 1.5,
        peak_bytes: None,
        finished: clock::now(),
        program: "0.1.0".to_owned(),
    }
}

fn begin<'a>(store: &'a Store, manifest: &Manifest) -> Begun<'a> {
    let mut nobody = |holder: &str| panic!("nobody holds the lock, yet it is {holder}");
    store.begin(&manifest.key(), false, &Interrupt::default(), &mut nobody).expect("the cache works")
}

fn work<'a>(store: &'a Store, manifest: &Manifest) -> PendingArtefact<'a> {
    match begin(store, manifest) {
        Begun::Pending(work) => work,
        Begun::Cached(_) => panic!("it is not in the cache yet"),
    }
}

/// Makes an artefact with one file `selection.json`.
fn make(store: &Store, manifest: &Manifest, text: &str) -> Entry {
    let work = work(store, manifest);
    fs::write(work.output().join("selection.json"), text).expect("the output folder is there");
    work.commit(manifest, made()).expect("the disk has space")
}

fn path(store: &Store, entry: &Entry) -> PathBuf {
    store.artefact(entry).path.join("selection.json")
}

#[test]
fn opening_and_looking_up_write_nothing() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    assert_eq!(store.lookup(&Digest::of(b"key")).expect("absent is no error"), Lookup::Absent);
    assert!(!sandbox.root().exists());
}

#[test]
fn a_commit_is_found_by_another_process() {
    let sandbox = Sandbox::new();
    let entry = make(&sandbox.store(), &manifest("select"), "{}");
    let store = sandbox.store();
    assert_eq!(store.lookup(&entry.key).expect("readable"), Lookup::Whole(entry.clone()));
    assert!(matches!(begin(&store, &manifest("select")), Begun::Cached(found) if found == entry));
    assert_eq!(fs::read_to_string(path(&store, &entry)).expect("the file is there"), "{}");
}

#[test]
fn an_attempt_leaves_its_checkpoint_and_nothing_else() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let first = work(&store, &manifest("distill"));
    fs::write(first.output().join("half"), "written").expect("writable");
    fs::write(first.checkpoint().join("step"), "100").expect("writable");
    // As SIGKILL would have it: no destructor runs, but the system drops the lock.
    let folder = first.checkpoint();
    std::mem::forget(first);
    let lock = sandbox.root().join("v1/leases").join(format!("key-{}", manifest("distill").key()));
    fs::remove_file(lock).expect("stands in for the death of its holder");

    let second = work(&store, &manifest("distill"));
    assert_eq!(fs::read_to_string(folder.join("step")).expect("kept"), "100");
    assert_eq!(fs::read_dir(second.output()).expect("there").count(), 0);
    drop(second);
    assert!(folder.join("step").exists());
    let third = work(&store, &manifest("distill"));
    third.commit(&manifest("distill"), made()).expect("the disk has space");
    assert!(!folder.exists());
}

#[test]
fn force_passes_over_entry_and_checkpoint() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let entry = make(&store, &manifest("score"), "old");
    let Ok(Begun::Pending(forced)) = store.begin(&entry.key, true, &Interrupt::default(), &mut |_| {}) else {
        panic!("a forced stage is made again");
    };
    fs::write(forced.output().join("selection.json"), "new").expect("writable");
    let newer = forced.commit(&manifest("score"), made()).expect("the disk has space");
    assert_ne!(newer.digest, entry.digest);
    assert_eq!(store.lookup(&entry.key).expect("readable"), Lookup::Whole(newer));
}

#[test]
fn equal_bytes_lie_in_one_folder() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let one = make(&store, &manifest("one"), "same");
    let two = make(&store, &manifest("two"), "same");
    assert_eq!(path(&store, &one), path(&store, &two));
    assert_eq!(sandbox.files().iter().filter(|path| path.ends_with("selection.json")).count(), 1);
}

#[test]
fn a_newer_cache_is_refused_and_left_alone() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.root()).expect("writable");
    fs::write(sandbox.root().join("version"), "2\n").expect("writable");
    let error = Store::open(&sandbox.root()).err().expect("format 2 is not known");
    assert!(matches!(&error, CacheError::NewerFormat { found, .. } if found == "2"), "{error}");
    assert_eq!(sandbox.files(), ["version"]);
}

#[test]
fn a_key_is_made_once_by_many() {
    let sandbox = Sandbox::new();
    let (made_by, waited) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let manifest = manifest("score");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let store = sandbox.store();
                let mut waiting = |_: &str| {
                    waited.fetch_add(1, Ordering::Relaxed);
                };
                match store.begin(&manifest.key(), false, &Interrupt::default(), &mut waiting) {
                    Ok(Begun::Pending(work)) => {
                        made_by.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(100));
                        fs::write(work.output().join("scores.json"), "{}").expect("writable");
                        work.commit(&manifest, made()).expect("the disk has space");
                    }
                    Ok(Begun::Cached(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
    });
    assert_eq!(made_by.into_inner(), 1);
    assert!(waited.into_inner() >= 1);
}

#[test]
fn files_of_artefacts_are_read_only_and_shared_ones_stay_as_they_are() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let loaded = path(&store, &make(&store, &manifest("load"), "weights"));
    let metadata = || fs::metadata(&loaded).expect("there");
    assert!(metadata().permissions().readonly());
    let time = metadata().modified().expect("has a time");
    let work = work(&store, &manifest("prune"));
    crate::base::copies::link(&loaded, &work.output().join("linked")).expect("one file system");
    let entry = work.commit(&manifest("prune"), made()).expect("the disk has space");
    assert_eq!(metadata().modified().expect("has a time"), time);
    assert!(metadata().permissions().readonly());
    assert!(matches!(store.lookup(&entry.key), Ok(Lookup::Whole(_))));
}

#[test]
fn leftovers_of_killed_processes_are_removed_and_checkpoints_stay() {
    let sandbox = Sandbox::new();
    let kept = sandbox.store();
    let v1 = sandbox.root().join("v1");
    let entry = make(&kept, &manifest("finished"), "good");
    let [resumable, begun, finished] =
        [manifest("resumable").key(), manifest("begun").key(), entry.key].map(|key| kept.work_folder(&key));
    for (folder, checkpoint) in [(&resumable, "step"), (&begun, ".step.unfinished"), (&finished, "step")] {
        fs::create_dir_all(folder.join("output")).expect("writable");
        fs::write(folder.join("output/half"), "written").expect("writable");
        fs::create_dir_all(folder.join("checkpoint")).expect("writable");
        fs::write(folder.join("checkpoint").join(checkpoint), "100").expect("writable");
    }
    let removed = v1.join(format!("work/removed-{}", entry.digest));
    fs::create_dir(&removed).expect("writable");
    let writing = v1.join("entries/.writing-abc");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 24 * 60 * 60);
    fs::File::create(&writing).and_then(|file| file.set_modified(old)).expect("writable");
    // Another process works on this one.
    let theirs = sandbox.store();
    let working = work(&theirs, &manifest("theirs"));
    fs::write(working.output().join("half"), "written").expect("writable");

    make(&sandbox.store(), &manifest("new"), "new");
    assert_eq!(fs::read_to_string(resumable.join("checkpoint/step")).expect("kept"), "100");
    let left = [&resumable.join("output"), &begun, &finished, &removed, &writing].map(|path| path.exists());
    assert_eq!(left, [false; 5]);
    assert_eq!(fs::read_to_string(working.output().join("half")).expect("kept"), "written");
}

#[test]
fn the_last_manifest_is_kept_per_pipeline_and_stage() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    store.remember("nano50", &"scores".into(), &manifest("old"), BTreeMap::new);
    store.remember("nano50", &"scores".into(), &manifest("new"), BTreeMap::new);
    store.remember("nano30", &"scores".into(), &manifest("other"), BTreeMap::new);
    assert_eq!(store.last_manifest("nano50", &"scores".into()), Some(manifest("new")));
    assert_eq!(store.last_manifest("nano50", &"points".into()), None);
}

#[test]
fn the_files_of_a_folder_are_kept_to_name_those_that_changed() -> io::Result<()> {
    let sandbox = Sandbox::new();
    let (store, folder) = (sandbox.store(), sandbox.folder.path().join("model"));
    fs::create_dir_all(folder.join("unet"))?;
    for (name, text) in [("unet/config.json", "{}"), ("index.json", "{}"), ("old.json", "{}")] {
        fs::write(folder.join(name), text)?;
    }
    let before = store.tree_of(&folder)?;
    let stage = "teacher".into();
    store.remember("nano50", &stage, &manifest("old"), || BTreeMap::from([("model".to_owned(), before)]));
    fs::write(folder.join("unet/config.json"), "{ }")?;
    fs::rename(folder.join("old.json"), folder.join("new.json"))?;
    let last = store.last_folder("nano50", &stage, "model").expect("it was kept");
    let changes = store.tree_of(&folder)?.changes_since(&last);
    let told: Vec<_> = changes.iter().map(|change| (change.path.as_str(), change.how)).collect();
    assert_eq!(told, [("new.json", How::New), ("old.json", How::Gone), ("unet/config.json", How::Changed)]);
    assert_eq!(store.last_folder("nano50", &stage, "tokenizer"), None);
    Ok(())
}

#[test]
fn a_version_file_is_read_for_what_it_says() {
    let sandbox = Sandbox::new();
    let version = sandbox.root().join("version");
    make(&sandbox.store(), &manifest("one"), "one");
    fs::write(&version, "").expect("a writable cache");
    let store = Store::open(&sandbox.root()).expect("an empty version is that of the folder");
    make(&store, &manifest("two"), "two");
    assert_eq!(fs::read_to_string(&version).expect("it is written again"), "1\n");
    for text in ["one\n", "1.0", "\0"] {
        fs::write(&version, text).expect("a writable cache");
        let error = Store::open(&sandbox.root()).err().expect("no number");
        assert!(matches!(error, CacheError::NoVersion { .. }), "{error}");
    }
    fs::write(&version, b"\xff\xfe").expect("a writable cache");
    assert!(matches!(Store::open(&sandbox.root()), Err(CacheError::NoVersion { .. })));
}

/// Stops at the first byte.
struct Stop;

impl Watch for Stop {
    fn hashed(&self, _: &Path, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Interrupted.into())
    }
}

#[test]
fn hashing_stops_on_request_and_nothing_is_damaged_by_it() -> io::Result<()> {
    let sandbox = Sandbox::new();
    let entry = make(&sandbox.store(), &manifest("one"), "one");
    // Forget the digests, so that they are computed again.
    fs::remove_dir_all(sandbox.root().join("v1/memo")).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    let store = sandbox.store().watched(Arc::new(Stop));
    assert!(matches!(store.lookup(&entry.key), Err(CacheError::Interrupted(_))));
    assert!(matches!(sandbox.store().lookup(&entry.key), Ok(Lookup::Whole(_))));
    let error = store.tree_of(&sandbox.root()).expect_err("it was stopped");
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    Ok(())
}
