//! Damage of every kind is noticed, and what is damaged is made again; what cannot be read is no damage.

use super::*;

/// Checks that `damage` is noticed with these digests, and that the key can then be made again.
fn is_noticed(damage: impl FnOnce(&Path), expected: Option<&str>, found: Option<&str>) {
    let sandbox = Sandbox::new();
    let entry = make(&sandbox.store(), &manifest("select"), "good");
    damage(&path(&sandbox.store(), &entry));
    let store = sandbox.store();
    let Ok(Lookup::Damaged(report)) = store.lookup(&entry.key) else {
        panic!("damage was not noticed");
    };
    let digest = |text: Option<&str>| text.map(|text| Digest::of(text.as_bytes()));
    assert_eq!((report.expected, report.found), (digest(expected), digest(found)), "{report}");
    assert_eq!(make(&store, &manifest("select"), "good").digest, entry.digest);
    assert!(matches!(store.lookup(&entry.key), Ok(Lookup::Whole(_))));
}

#[test]
fn changed_bytes_are_noticed_and_made_again() {
    let replace = |file: &Path| {
        fs::remove_file(file).expect("there");
        fs::write(file, "evil").expect("writable");
    };
    is_noticed(replace, Some("good"), Some("evil"));
}

#[test]
fn a_lost_file_is_noticed_and_made_again() {
    is_noticed(|file| fs::remove_file(file).expect("there"), Some("good"), None);
}

#[test]
fn a_file_too_many_is_noticed_and_made_again() {
    is_noticed(|file| fs::write(file.with_file_name("x"), "new").expect("writable"), None, Some("new"));
}

#[test]
fn a_damaged_entry_is_made_again_whatever_stands_in_its_place() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let entry = make(&store, &manifest("select"), "good");
    let other = store.entry_file(&make(&store, &manifest("other"), "good").key);
    let file = store.entry_file(&entry.key);
    let text = fs::read_to_string(&file).expect("there");
    let mut flipped = text.clone().into_bytes();
    let seconds = text.find("1.5").expect("the time is not part of the key");
    flipped[seconds] ^= 1;
    let put = |bytes: &[u8]| fs::write(&file, bytes).expect("writable");
    let damages: [&dyn Fn(); 8] = [
        &|| put(&text.as_bytes()[..text.len() / 2]),
        &|| put(text.replace("select", "prune").as_bytes()),
        &|| put(&flipped),
        &|| put(b""),
        &|| put(&[0xff; 40]),
        &|| put(&fs::read(&other).expect("there")),
        &|| fs::create_dir_all(file.join("folder")).expect("writable"),
        &|| std::os::unix::fs::symlink(&other, &file).expect("links work"),
    ];
    for (number, damage) in damages.iter().enumerate() {
        fs::remove_file(&file).expect("there");
        damage();
        let found = store.lookup(&entry.key);
        assert!(matches!(&found, Ok(Lookup::Damaged(damage)) if damage.path == file), "{number}: {found:?}");
        assert_eq!(make(&store, &manifest("select"), "good").digest, entry.digest);
        assert!(matches!(store.lookup(&entry.key), Ok(Lookup::Whole(_))), "{number}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_stays() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let entry = make(&store, &manifest("select"), "good");
    let (file, folder) = (path(&store, &entry), store.artefact(&entry).path);
    // A link to itself gives an error for every user, even for one who may read everything.
    let aside = sandbox.folder.path().join("aside");
    for place in [&file, &folder] {
        fs::rename(place, &aside).expect("one file system");
        std::os::unix::fs::symlink(place, place).expect("links work");
        let store = sandbox.store();
        let error = store.lookup(&entry.key).expect_err("it cannot be read");
        assert!(matches!(error, CacheError::File(_)), "{error}");
        let begun = store.begin(&entry.key, false, &Interrupt::default(), &mut |_| {});
        assert!(matches!(begun, Err(CacheError::File(_))));
        assert!(store.entry_file(&entry.key).is_file());
        fs::remove_file(place).expect("it is still there");
        fs::rename(&aside, place).expect("one file system");
        assert!(matches!(store.lookup(&entry.key), Ok(Lookup::Whole(_))));
    }
}

#[test]
fn something_else_in_place_of_an_artefact_is_removed() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let entry = make(&store, &manifest("select"), "good");
    let folder = store.artefact(&entry).path;
    fs::remove_dir_all(&folder).expect("folders are writable");
    fs::write(&folder, "a file").expect("writable");
    assert!(matches!(store.lookup(&entry.key), Ok(Lookup::Damaged(damage)) if damage.path == folder));
    assert_eq!(make(&store, &manifest("select"), "good").digest, entry.digest);
    assert!(matches!(store.lookup(&entry.key), Ok(Lookup::Whole(_))));
}

#[test]
fn a_hidden_file_is_checked_by_its_seal() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let make = |seconds: f64, name: &str| {
        let work = work(&store, &manifest(name));
        let timings = std::collections::BTreeMap::from([("seconds", seconds)]);
        crate::base::sealed::write(&work.output().join(".timings.json"), &timings).expect("writable");
        fs::write(work.output().join(".DS_Store"), "of a tool").expect("writable");
        fs::write(work.output().join("selection.json"), "good").expect("writable");
        work.commit(&manifest(name), made()).expect("the disk has space")
    };
    let (one, two) = (make(1.0, "one"), make(2.0, "two"));
    assert_eq!((one.digest, &one.hidden), (two.digest, &vec![".timings.json".to_owned()]));
    let timings = store.artefact(&one).path.join(".timings.json");
    assert!(fs::metadata(&timings).expect("there").permissions().readonly());
    let is_whole = |entry: &Entry| match sandbox.store().lookup(&entry.key).expect("readable") {
        Lookup::Whole(_) => true,
        Lookup::Damaged(damage) if damage.path == timings => false,
        other => panic!("{other:?}"),
    };
    assert!(is_whole(&one) && is_whole(&two));
    let text = fs::read_to_string(&timings).expect("there");
    fs::remove_file(&timings).expect("there");
    assert!(!is_whole(&one) && !is_whole(&two));
    fs::write(&timings, text.replace("1.0", "3.0")).expect("writable");
    assert!(!is_whole(&one));
    make(4.0, "one");
    assert!(is_whole(&one) && is_whole(&two));
}

#[test]
fn verification_finds_what_a_lookup_trusts() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let [one, two] = ["one", "two"].map(|name| make(&store, &manifest(name), name));
    let forced = make(&store, &manifest("forced"), "old");
    fs::remove_file(store.entry_file(&forced.key)).expect("there");
    store.save_digests();
    let verify = || {
        let store = sandbox.store().rechecking(Recheck::All);
        store.verify(&Interrupt::default()).expect("readable")
    };
    let whole = verify();
    assert_eq!((whole.entries, whole.artefacts, whole.bytes, whole.is_whole()), (2, 3, 9, true));

    // A failing disk changes bytes without a trace; here the memo is told that they are the old ones.
    for entry in [&one, &forced] {
        let file = path(&store, entry);
        fs::remove_file(&file).expect("there");
        fs::write(&file, "bad").expect("writable");
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        fs::File::options().write(true).open(&file).and_then(|f| f.set_modified(old)).expect("writable");
        store.memo.know(&store.artefact(entry).path, &entry.files).expect("readable");
    }
    store.save_digests();
    assert!(matches!(sandbox.store().lookup(&one.key), Ok(Lookup::Whole(_))));
    fs::write(store.entry_file(&two.key), "{}").expect("writable");
    fs::create_dir(sandbox.root().join("v1/entries/stray")).expect("writable");
    let found = verify();
    let damaged: std::collections::BTreeSet<_> = found.damaged.iter().map(|damage| &damage.path).collect();
    let stray = sandbox.root().join("v1/entries/stray");
    assert_eq!(
        damaged,
        [&stray, &store.entry_file(&two.key), &path(&store, &one), &store.artefact(&forced).path].into()
    );
    // From now on a run knows it too.
    assert!(matches!(sandbox.store().lookup(&one.key), Ok(Lookup::Damaged(_))));
}
