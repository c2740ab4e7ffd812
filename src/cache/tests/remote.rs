//! Caches of several machines that share a remote: what one made, the others need not make; and nothing that is wrong there
//! is ever used.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::super::remote::{Remote, Source, Trouble};
use super::*;
use crate::base::manifest::TRAINING_STATE;
use crate::base::sealed;

/// The folder of a remote, and machines with a cache each.
struct Lab {
    folder: tempfile::TempDir,
}

/// Makes an artefact of two files, one of which is below a folder, and a hidden one.
struct Making<'a> {
    bytes: &'a str,
    runs: usize,
    told: Vec<String>,
}

impl Maker for Making<'_> {
    type Error = CacheError;

    fn notice(&mut self, notice: Notice<'_>) {
        if let Notice::Remote { text } = notice {
            self.told.push(text.to_owned());
        }
    }

    fn make(&mut self, pending: &PendingArtefact<'_>) -> Result<(), CacheError> {
        self.runs += 1;
        let output = pending.output();
        fs::create_dir(output.join("unet")).expect("an empty folder");
        fs::write(output.join("selection.json"), self.bytes).expect("writable");
        fs::write(output.join("unet/weights"), "weights").expect("writable");
        sealed::write(&output.join(".state"), &BTreeMap::from([("steps", 3)])).expect("writable");
        Ok(())
    }
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("remote")).expect("an empty folder");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn address(&self) -> Address {
        self.path("remote").to_str().expect("UTF-8").parse().expect("a folder")
    }

    fn machine(&self, name: &str) -> Store {
        self.machine_with(name, Shared::new(self.address(), None).expect("a folder needs no feature"))
    }

    fn machine_with(&self, name: &str, shared: Shared) -> Store {
        Store::open(&self.path(name)).expect("a new cache").sharing(Some(shared))
    }

    /// The files of the remote of which a test wants the names.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("remote").join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    fn blob(&self, text: &str) -> PathBuf {
        self.path("remote/v1/blobs").join(Digest::of(text.as_bytes()).to_string())
    }
}

/// Obtains an artefact; returns its entry, how often it was made, and what was told.
fn obtain(store: &Store, manifest: &Manifest, bytes: &str, force: bool) -> (Entry, usize, Vec<String>) {
    let mut making = Making { bytes, runs: 0, told: Vec::new() };
    let request =
        Request { manifest, kind: ArtefactKind::Selection, force, interrupt: &Interrupt::default() };
    let obtained = store.obtain(&request, &mut making).expect("a remote never fails a run");
    let whole = store.lookup(&obtained.entry().key).expect("readable");
    assert_eq!(whole, Lookup::Whole(obtained.entry().clone()));
    (obtained.entry().clone(), making.runs, making.told)
}

#[test]
fn a_second_machine_makes_nothing_and_knows_how_long_the_first_one_took() {
    let lab = Lab::new();
    let (made, runs, told) = obtain(&lab.machine("one"), &manifest("select"), "{}", false);
    assert_eq!(runs, 1);
    assert!(told.len() == 1 && told[0].starts_with("sent "), "{told:?}");
    let two = lab.machine("two");
    let (found, runs, told) = obtain(&two, &manifest("select"), "never", false);
    assert_eq!((&found, runs), (&made, 0), "the times of its making go along");
    assert!(told.len() == 1 && told[0].starts_with("fetched "), "{told:?}");
    assert_eq!(found.hidden, [".state"]);
    let state: BTreeMap<String, u64> =
        sealed::read(&two.artefact(&found).path.join(".state")).expect("hidden files go along");
    assert_eq!(state["steps"], 3);
    assert!(fs::metadata(path(&two, &found)).expect("there").permissions().readonly());

    // Without its remote, and forced, a machine makes it again; the first one stays in the remote.
    assert_eq!(obtain(&lab.machine("two"), &manifest("select"), "other", true).1, 1);
    let (third, runs, _) = obtain(&lab.machine("three"), &manifest("select"), "never", false);
    assert_eq!((third.digest, runs), (made.digest, 0));
}

#[test]
fn whatever_is_wrong_in_a_remote_is_refused_told_made_anew_and_replaced() {
    let entry = |lab: &Lab| lab.files("v1/entries").pop().expect("one entry");
    let rewritten = |lab: &Lab, from: &str, to: &str| {
        let value: serde_json::Value = sealed::read(&entry(lab)).expect("whole");
        let text = value.to_string().replace(from, to);
        let value: serde_json::Value = serde_json::from_str(&text).expect("still JSON");
        sealed::write(&entry(lab), &value).expect("writable");
    };
    type Wrong<'a> = (&'a str, &'a dyn Fn(&Lab));
    let wrongs: [Wrong<'_>; 9] = [
        ("its file selection.json is damaged", &|lab| fs::write(lab.blob("good"), "evil").expect("writable")),
        ("its file selection.json is cut short", &|lab| {
            fs::write(lab.blob("good"), "goo").expect("writable")
        }),
        ("its file selection.json is damaged", &|lab| {
            fs::write(lab.blob("good"), "good and more").expect("writable");
        }),
        ("its file unet/weights is missing", &|lab| fs::remove_file(lab.blob("weights")).expect("there")),
        ("its entry is damaged", &|lab| {
            let text = fs::read(entry(lab)).expect("there");
            fs::write(entry(lab), &text[..text.len() / 2]).expect("writable");
        }),
        ("its entry is damaged", &|lab| fs::write(entry(lab), "{}").expect("writable")),
        ("its entry is that of another key", &|lab| {
            let value: serde_json::Value = sealed::read(&entry(lab)).expect("whole");
            let digest = value["entry"]["digest"].as_str().expect("text");
            rewritten(lab, digest, &Digest::of(b"evil").to_string());
        }),
        ("its entry is of another kind", &|lab| rewritten(lab, "\"selection\"", "\"model\"")),
        ("its entry names files that no artefact has", &|lab| rewritten(lab, ".state", "../../.state")),
    ];
    for (reason, damage) in wrongs {
        let lab = Lab::new();
        let (good, ..) = obtain(&lab.machine("one"), &manifest("select"), "good", false);
        damage(&lab);
        let (made, runs, told) = obtain(&lab.machine("two"), &manifest("select"), "good", false);
        assert_eq!((runs, made.digest), (1, good.digest), "{reason}");
        assert!(told.len() == 2 && told[0].contains(reason) && told[1].starts_with("sent"), "{told:?}");
        let (found, runs, told) = obtain(&lab.machine("three"), &manifest("select"), "never", false);
        assert_eq!((runs, found.digest), (0, good.digest), "{reason}: {told:?}");
    }
}

#[test]
fn an_entry_of_somebody_who_names_places_outside_is_refused_although_it_is_sound() {
    let lab = Lab::new();
    let store = lab.machine("one");
    let (made, ..) = obtain(&store, &manifest("select"), "good", false);
    let name = lab.files("v1/entries").pop().expect("one entry");
    let mut value: serde_json::Value = sealed::read(&name).expect("whole");
    value["entry"]["files"][0]["path"] = "../../../outside".into();
    let files: Tree = serde_json::from_value(value["entry"]["files"].clone()).expect("a tree");
    value["entry"]["digest"] = files.digest().to_string().into();
    sealed::write(&name, &value).expect("writable");
    let (found, runs, told) = obtain(&lab.machine("two"), &manifest("select"), "good", false);
    assert_eq!((runs, found.digest), (1, made.digest));
    assert!(told[0].contains("names files that no artefact has"), "{told:?}");
    assert!(!lab.path("outside").exists() && !lab.path("two/outside").exists());
}

#[test]
fn a_remote_that_cannot_be_used_is_told_once_and_the_run_goes_on() {
    let lab = Lab::new();
    fs::write(lab.path("remote/v1"), "a file in the place of a folder").expect("writable");
    let store = lab.machine("one");
    let (_, runs, told) = obtain(&store, &manifest("one"), "{}", false);
    assert_eq!(runs, 1);
    assert!(told.len() == 2, "{told:?}");
    assert!(
        told[0].contains("cannot be read") && told[0].contains("going on with the local cache"),
        "{told:?}"
    );
    assert!(told[1].contains("not sent: `laptop-diff cache push`"), "{told:?}");
    let (_, runs, told) = obtain(&store, &manifest("two"), "{}", false);
    assert_eq!((runs, told), (1, Vec::new()), "it rests");

    fs::remove_dir_all(lab.path("remote")).or_else(|_| fs::remove_file(lab.path("remote"))).expect("ours");
    let (_, runs, told) = obtain(&lab.machine("two"), &manifest("one"), "{}", false);
    assert_eq!(runs, 1);
    assert!(told[0].contains("is not there: make the folder, or mount its disk"), "{told:?}");
    assert!(!lab.path("remote").exists(), "the place of a disk that is not mounted is not filled");
}

#[test]
fn a_remote_that_may_only_be_read_is_read() {
    let lab = Lab::new();
    // Not even root can write there.
    let shared = || Shared::new("/proc".parse().expect("a folder"), None).expect("a folder");
    let store = lab.machine_with("one", shared());
    let (made, runs, told) = obtain(&store, &manifest("one"), "{}", false);
    assert_eq!(runs, 1);
    assert!(told.len() == 1 && told[0].contains("cannot be written to"), "{told:?}");
    assert_eq!(shared().problem(&Interrupt::default()), None);
    let pushed = store.push(&made.key, &Interrupt::default());
    assert!(pushed.is_err_and(|error| error.to_string().contains("/proc cannot be written to")));
}

/// A folder that stops to take anything after so many objects, and counts them.
struct Failing {
    folder: PathBuf,
    left: AtomicUsize,
    puts: Arc<Mutex<Vec<String>>>,
    is_slow: AtomicBool,
}

impl Failing {
    fn inner(&self) -> Shared {
        Shared::new(self.folder.to_str().expect("UTF-8").parse().expect("a folder"), None).expect("a folder")
    }
}

impl Remote for Failing {
    fn get(&self, name: &str, into: &mut dyn io::Write, stop: &Interrupt) -> Result<(), Trouble> {
        self.inner().open()?.get(name, into, stop)
    }

    fn put(&self, name: &str, source: Source<'_>, stop: &Interrupt) -> Result<(), Trouble> {
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if taken.is_err() {
            return Err(Trouble::Lasting("answered 507".to_owned()));
        }
        // A slow server for a moment: the next attempt succeeds.
        if self.is_slow.swap(false, Ordering::SeqCst) {
            return Err(Trouble::Passing("answered 503 SlowDown".to_owned()));
        }
        self.puts.lock().expect("nobody panics").push(name.to_owned());
        self.inner().open()?.put(name, source, stop)
    }

    fn list(&self, folder: &str, stop: &Interrupt) -> Result<Vec<String>, Trouble> {
        self.inner().open()?.list(folder, stop)
    }

    fn exists(&self, name: &str, stop: &Interrupt) -> Result<Option<u64>, Trouble> {
        self.inner().open()?.exists(name, stop)
    }
}

#[test]
fn a_half_upload_is_seen_by_nobody_and_the_next_one_sends_the_rest() {
    let lab = Lab::new();
    let failing = |left, is_slow| {
        let (left, puts) = (AtomicUsize::new(left), Arc::default());
        let failing = Failing {
            folder: lab.path("remote"),
            left,
            puts: Arc::clone(&puts),
            is_slow: AtomicBool::new(is_slow),
        };
        (Shared::of(Box::new(failing)), puts)
    };
    let (shared, first) = failing(2, false);
    let (made, runs, told) = obtain(&lab.machine_with("one", shared), &manifest("select"), "{}", false);
    assert!(runs == 1 && told[0].contains("answered 507; not sent"), "{told:?}");
    assert!(lab.files("v1/entries").is_empty(), "the entry comes last");
    let silent = Shared::new(lab.address(), None).expect("a folder");
    let two = lab.machine_with("two", silent);
    let nobody = &mut |_: &str| panic!("nobody makes it");
    assert_eq!(two.pull(&made.key, &Interrupt::default(), nobody).expect("readable"), Pulled::Absent);

    let (shared, second) = failing(9, true);
    let one = lab.machine_with("one", shared);
    let bytes =
        made.files.bytes() + fs::metadata(one.artefact(&made).path.join(".state")).expect("there").len();
    let pushed = one.push(&made.key, &Interrupt::default()).expect("it takes all");
    assert!(matches!(pushed, Pushed::New { bytes: rest } if 0 < rest && rest < bytes), "{pushed:?}");
    let names = |puts: &Arc<Mutex<Vec<String>>>| puts.lock().expect("nobody panics").clone();
    let (first, second) = (names(&first), names(&second));
    assert_eq!((first.len(), second.len()), (2, 2), "three files and the entry: {first:?} {second:?}");
    assert!(first.iter().all(|name| !second.contains(name)), "{first:?} {second:?}");
    assert_eq!(one.push(&made.key, &Interrupt::default()).expect("readable"), Pushed::There);
    assert_eq!(one.push(&Digest::of(b"other"), &Interrupt::default()).expect("readable"), Pushed::Absent);
    assert_eq!(two.remote_keys(&Interrupt::default()).expect("readable"), [made.key]);
    assert_eq!(two.pull(&made.key, &Interrupt::default(), nobody).expect("whole"), Pulled::New { bytes });
    assert_eq!(two.pull(&made.key, &Interrupt::default(), nobody).expect("whole"), Pulled::Here);
    assert_eq!(two.lookup(&made.key).expect("readable"), Lookup::Whole(made));
}

#[test]
fn of_machines_that_make_a_key_at_once_one_wins_and_none_loses_its_work() {
    let lab = Lab::new();
    let texts: Vec<String> = (0..8).map(|index| format!("bytes of machine {index}")).collect();
    let barrier = std::sync::Barrier::new(texts.len());
    std::thread::scope(|scope| {
        for text in &texts {
            let (lab, barrier) = (&lab, &barrier);
            scope.spawn(move || {
                let store = Store::open(&lab.path(text)).expect("a new cache");
                let (made, ..) = obtain(&store, &manifest("select"), text, false);
                let shared = Shared::new(lab.address(), None).expect("a folder");
                let store = store.sharing(Some(shared));
                barrier.wait();
                store.push(&made.key, &Interrupt::default()).expect("the folder takes all");
                let mine = fs::read_to_string(path(&store, &made)).expect("there");
                assert_eq!(&mine, text, "its own work stays");
            });
        }
    });
    let reader = lab.machine("reader");
    let (found, runs, told) = obtain(&reader, &manifest("select"), "never", false);
    assert_eq!(runs, 0, "{told:?}");
    let winner = fs::read_to_string(path(&reader, &found)).expect("there");
    assert!(texts.contains(&winner), "{winner}");
}

#[test]
fn a_finished_artefact_ends_an_attempt_that_has_a_checkpoint_and_equal_bytes_are_not_fetched_again() {
    let lab = Lab::new();
    let (made, ..) = obtain(&lab.machine("one"), &manifest("select"), "{}", false);
    let two = lab.machine("two");
    let begun = work(&two, &manifest("select"));
    fs::write(begun.checkpoint().join("step"), "100").expect("writable");
    let folder = begun.checkpoint();
    drop(begun);
    assert_eq!(obtain(&two, &manifest("select"), "never", false).1, 0);
    assert!(!folder.exists());

    obtain(&lab.machine("one"), &manifest("other"), "{}", false);
    lab.files("v1/blobs").iter().for_each(|blob| fs::remove_file(blob).expect("there"));
    let (found, runs, _) = obtain(&two, &manifest("other"), "never", false);
    assert_eq!((found.digest, runs), (made.digest, 0));
}

#[test]
fn the_state_of_a_training_stays_here() {
    let lab = Lab::new();
    let mut state = manifest("distill");
    state.field(TRAINING_STATE, "weights");
    let (made, _, told) = obtain(&lab.machine("one"), &state, "{}", false);
    assert_eq!((lab.files("v1/entries").len(), told), (0, Vec::new()));
    let pushed = lab.machine("one").push(&made.key, &Interrupt::default()).expect("the folder takes it");
    assert!(matches!(pushed, Pushed::New { .. }), "unless somebody asks for it by its key");
}
