//! What a collection removes, and what it never does.

use std::time::{Duration, SystemTime};

use super::*;
use crate::base::manifest::TRAINING_STATE;

fn all() -> Limits {
    Limits { all: true, ..Limits::default() }
}

/// Removes what `limits` name, and gives why each thing went.
fn collect(store: &Store, limits: &Limits, needed: &Needed) -> Vec<Reason> {
    let collection = store.collection(limits, needed).expect("readable");
    let collected = store.collect(&collection, &Interrupt::default()).expect("writable");
    assert!(collected.spared.is_empty(), "{collected:?}");
    collected.removed.iter().map(|one| one.reason).collect()
}

fn is_there(store: &Store, entry: &Entry) -> bool {
    matches!(store.lookup(&entry.key), Ok(Lookup::Whole(_)))
}

/// Makes an entry look as if it was last used so long ago.
fn last_used(store: &Store, entry: &Entry, seconds: u64) {
    let file = fs::File::options().append(true).open(store.entry_file(&entry.key)).expect("an entry");
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).expect("our file");
}

fn needed_by_a_run(entry: &Entry) -> Needed {
    let mut needed = Needed::default();
    needed.add(entry.key, "runs/nano50");
    needed
}

#[test]
fn what_runs_need_stays_and_the_rest_goes_with_its_bytes() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let [kept, gone] = ["kept", "gone"].map(|name| make(&store, &manifest(name), &name.repeat(1000)));
    let collection = store.collection(&all(), &needed_by_a_run(&kept)).expect("readable");
    let [candidate] = &collection.candidates[..] else { panic!("{collection:?}") };
    assert_eq!((candidate.bytes, collection.bytes - collection.left), (4000, 4000));
    assert!(is_there(&store, &gone), "looking removes nothing");
    assert_eq!(collect(&store, &all(), &needed_by_a_run(&kept)), [Reason::Unneeded]);
    assert_eq!((is_there(&store, &kept), is_there(&store, &gone)), (true, false));
    assert_eq!(collect(&store, &all(), &needed_by_a_run(&kept)), []);
    let after = store.contents().expect("readable").bytes;
    assert!(after < collection.bytes - 3000, "{after} of {}", collection.bytes);
}

#[test]
fn parts_of_what_is_needed_stay_also_of_unfinished_work() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let [part, later, free] = ["part", "later", "free"].map(|name| make(&store, &manifest(name), name));
    let whole = work(&store, &manifest("whole"));
    whole.note_part(&part.key).expect("writable");
    fs::write(whole.output().join("metrics.json"), "{}").expect("writable");
    let whole = whole.commit(&manifest("whole"), made()).expect("the disk has space");
    assert_eq!(whole.parts, [part.key]);
    let unfinished = work(&store, &manifest("unfinished"));
    unfinished.note_part(&later.key).expect("writable");
    drop(unfinished);
    let mut needed = needed_by_a_run(&whole);
    needed.add(manifest("unfinished").key(), "runs/other");
    assert_eq!(collect(&store, &all(), &needed), [Reason::Unneeded]);
    let there = [&part, &later, &whole, &free].map(|entry| is_there(&store, entry));
    assert_eq!(there, [true, true, true, false]);
}

#[test]
fn what_a_process_uses_stays_until_it_ends() {
    let sandbox = Sandbox::new();
    let (store, user) = (sandbox.store(), sandbox.store());
    let entry = make(&store, &manifest("used"), "bytes");
    user.hold(&entry.key);
    assert_eq!(collect(&store, &all(), &Needed::default()), []);
    // Found before somebody began to use it, as in a process that starts meanwhile.
    drop(user);
    let collection = store.collection(&all(), &Needed::default()).expect("readable");
    assert_eq!(collection.candidates.len(), 1);
    let user = sandbox.store();
    user.hold(&entry.key);
    let collected = store.collect(&collection, &Interrupt::default()).expect("writable");
    assert_eq!((collected.removed.len(), collected.spared.len()), (0, 1));
    assert!(is_there(&store, &entry));
    drop(user);
    assert_eq!(fs::read_dir(store.place("users")).expect("there").count(), 0, "it leaves nothing");
    assert_eq!(collect(&store, &all(), &Needed::default()), [Reason::Unneeded]);
}

#[test]
fn what_the_dead_held_goes_and_what_the_living_hold_stays() {
    let sandbox = Sandbox::new();
    let (store, user) = (sandbox.store(), sandbox.store());
    user.hold(&manifest("used").key());
    let [users, leases] = ["users", "leases"].map(|place| store.place(place));
    let count = |folder: &Path| fs::read_dir(folder).expect("there").count();
    let lives = fs::read_dir(&leases).expect("there").next().expect("one").expect("readable").path();
    let mut lease: serde_json::Value = {
        let text = fs::read_to_string(&lives).expect("readable");
        serde_json::from_str(text.lines().next().expect("a line")).expect("a lease")
    };
    // A process of the same number that started at another time.
    lease["holder"]["started"] = 1.into();
    for name in ["key-of-the-dead", "user-of-the-dead"] {
        fs::write(leases.join(name), format!("{lease}\n")).expect("writable");
    }
    fs::write(users.join("of-the-dead"), "").expect("writable");
    assert_eq!((count(&users), count(&leases)), (2, 3));
    assert_eq!(collect(&store, &all(), &Needed::default()), []);
    assert_eq!((count(&users), count(&leases)), (1, 1));
    assert!(lives.exists());
}

#[test]
fn a_process_whose_lease_was_taken_tells_again_what_it_uses() {
    let sandbox = Sandbox::new();
    let (store, user) = (sandbox.store(), sandbox.store());
    let [first, second] = ["first", "second"].map(|name| make(&store, &manifest(name), name));
    user.hold(&first.key);
    // It was suspended for so long that it counted as dead.
    let lease = fs::read_dir(store.place("leases")).expect("there").next().expect("one").expect("readable");
    fs::remove_file(lease.path()).expect("ours");
    store.forget_the_dead().expect("writable");
    assert_eq!(store.held().expect("readable").len(), 0);
    user.hold(&second.key);
    assert_eq!(collect(&store, &all(), &Needed::default()), []);
    assert!(is_there(&store, &first) && is_there(&store, &second));
}

#[test]
fn what_was_used_and_finished_meanwhile_stays() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let entry = make(&store, &manifest("used"), "bytes");
    last_used(&store, &entry, 100);
    let collection = store.collection(&all(), &Needed::default()).expect("readable");
    sandbox.store().touch(&entry.key);
    let collected = store.collect(&collection, &Interrupt::default()).expect("writable");
    assert_eq!((collected.spared.len(), is_there(&store, &entry)), (1, true));
}

#[test]
fn an_artefact_stays_for_an_entry_that_was_made_meanwhile() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let old = make(&store, &manifest("old"), "equal");
    let collection = store.collection(&all(), &Needed::default()).expect("readable");
    let new = make(&store, &manifest("new"), "equal");
    let collected = store.collect(&collection, &Interrupt::default()).expect("writable");
    assert_eq!(collected.spared.len(), 1);
    assert_eq!((is_there(&store, &old), is_there(&store, &new)), (false, true));
}

#[test]
fn the_longest_unused_goes_first_until_the_cache_is_small_enough() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let ages = [("young", 10), ("old", 1000), ("middle", 100)];
    let [young, old, middle] = ages.map(|(name, seconds)| {
        let entry = make(&store, &manifest(name), &name[..3].repeat(10_000));
        last_used(&store, &entry, seconds);
        entry
    });
    let there = || [&old, &middle, &young].map(|entry| is_there(&store, entry));
    let older = Limits { older_than: Some(Duration::from_secs(500)), ..Limits::default() };
    assert_eq!(collect(&store, &older, &needed_by_a_run(&old)), [], "a run needs it");
    assert_eq!(collect(&store, &older, &Needed::default()), [Reason::Unused]);
    assert_eq!(there(), [false, true, true]);
    let bytes = store.contents().expect("readable").bytes;
    let size = Limits { max_bytes: Some(bytes - 20_000), ..Limits::default() };
    assert_eq!(collect(&store, &size, &Needed::default()), [Reason::Size]);
    assert_eq!(there(), [false, false, true]);
}

#[test]
fn checkpoints_and_training_states_of_runs_have_an_age_of_their_own() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let mut state = manifest("distill");
    state.field(TRAINING_STATE, "end of the training");
    let state = make(&store, &state, "moments");
    last_used(&store, &state, 1000);
    let unfinished = work(&store, &manifest("unfinished"));
    fs::write(unfinished.checkpoint().join("step"), "100").expect("writable");
    let mut needed = needed_by_a_run(&state);
    needed.add(manifest("unfinished").key(), "runs/nano50");
    assert_eq!(collect(&store, &all(), &needed), [], "runs need both");
    let soon =
        |seconds| Limits { checkpoints_older_than: Some(Duration::from_secs(seconds)), ..Limits::default() };
    assert_eq!(collect(&store, &soon(0), &needed), [Reason::TrainingState], "the other is at work");
    let folder = unfinished.checkpoint();
    drop(unfinished);
    assert_eq!(collect(&store, &soon(500), &needed), [], "it is young");
    assert_eq!(collect(&store, &soon(0), &needed), [Reason::Checkpoint]);
    assert!(!folder.exists());
}

#[test]
fn files_that_artefacts_share_are_freed_with_the_last_of_them() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let one = make(&store, &manifest("one"), &"x".repeat(5000));
    let two = work(&store, &manifest("two"));
    crate::base::copies::link(&path(&store, &one), &two.output().join("linked")).expect("one file system");
    let two = two.commit(&manifest("two"), made()).expect("the disk has space");
    let freed = |needed: &Needed| -> u64 {
        let collection = store.collection(&all(), needed).expect("readable");
        collection.candidates.iter().map(|one| one.bytes).sum()
    };
    assert_eq!(freed(&needed_by_a_run(&two)), 0);
    assert_eq!(freed(&Needed::default()), 5000);
}

#[test]
fn an_artefact_without_an_entry_goes_unless_a_run_links_to_it() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let old = make(&store, &manifest("score"), "old");
    let Ok(Begun::Pending(forced)) = store.begin(&old.key, true, &Interrupt::default(), &mut |_| {}) else {
        panic!("a forced stage is made again");
    };
    fs::write(forced.output().join("selection.json"), "new").expect("writable");
    let new = forced.commit(&manifest("score"), made()).expect("the disk has space");
    let mut needed = needed_by_a_run(&new);
    needed.add(old.digest, "runs/nano50");
    assert_eq!(collect(&store, &all(), &needed), []);
    assert_eq!(collect(&store, &all(), &needed_by_a_run(&new)), [Reason::Unneeded]);
    assert!(!path(&store, &old).exists() && is_there(&store, &new));
}

#[test]
fn repair_removes_what_is_damaged_and_nothing_else() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let [whole, damaged] = ["whole", "damaged"].map(|name| make(&store, &manifest(name), name));
    fs::remove_file(path(&store, &damaged)).expect("ours");
    let stray = store.place("entries").join("stray.json");
    fs::write(&stray, "{}").expect("writable");
    let store = sandbox.store().rechecking(Recheck::All);
    let found = store.verify(&Interrupt::default()).expect("readable");
    assert_eq!(found.damaged.len(), 2, "{found:?}");
    store.repair(&found, &Interrupt::default()).expect("writable");
    assert!(!stray.exists() && is_there(&store, &whole));
    assert_eq!(store.lookup(&damaged.key).expect("readable"), Lookup::Absent);
    assert!(store.verify(&Interrupt::default()).expect("readable").is_whole());
}

#[test]
fn roots_are_kept_by_kind_and_name_and_a_damaged_one_is_an_error() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    assert_eq!(store.roots().expect("an empty cache"), []);
    let run = Root::new(RootKind::Run, Path::new("/runs/nano50"), vec![Digest::of(b"key")]);
    let pin = Root { kind: RootKind::Pin, ..run.clone() };
    for root in [&run, &pin, &run] {
        store.add_root(root).expect("writable");
    }
    assert_eq!(store.roots().expect("readable").len(), 2);
    assert!(store.remove_root(RootKind::Run, &run.name).expect("writable"));
    assert!(!store.remove_root(RootKind::Run, &run.name).expect("writable"));
    assert_eq!(store.roots().expect("readable"), [pin]);
    let file = fs::read_dir(store.place("roots")).expect("there").flatten().next().expect("the pin").path();
    fs::write(file, "{}").expect("writable");
    assert!(matches!(store.roots(), Err(CacheError::BrokenRoot { .. })));
}
