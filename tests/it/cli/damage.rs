//! Flipped bits in everything that a run leaves and reads: each is noticed by every command that reads the file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::handover::{STAGES, teacher};
use crate::common::{Sandbox, expect, expect_code};
use laptop_diff::base::{Digest, sealed};
use laptop_diff::cache::{Lookup, Store};

const FILE: &str = "tiny.yaml";
const NEVER_REACHED: &str = "retrained.training.steps=1000000";

/// Every stage, without a traversal of the U-Net for each unit.
fn pipeline() -> String {
    let scored = STAGES.replace("additivity-sets: 0", "additivity-sets: 0, criteria: [magnitude]");
    scored.replace("layout: bk-sdm-tiny", "layout: bk-sdm-tiny, criterion: magnitude")
}

/// xorshift64, Marsaglia 2003.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % count as u64) as usize
    }
}

/// A file with one flipped bit. Dropping it restores the file.
struct Flipped {
    path: PathBuf,
    whole: Vec<u8>,
    place: String,
}

impl Flipped {
    fn any(files: &[PathBuf], dice: &mut Dice) -> Self {
        let path = files[dice.below(files.len())].clone();
        let whole = fs::read(&path).expect("a file of the run");
        let (byte, bit) = (dice.below(whole.len()), dice.below(8));
        let mut flipped = whole.clone();
        flipped[byte] ^= 1 << bit;
        replace(&path, &flipped);
        let place = format!("bit {bit} of byte {byte} of {}", path.display());
        Self { path, whole, place }
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        replace(&self.path, &self.whole);
    }
}

/// Puts another file in the place of one that may be read-only, or a link to a file of the repository.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).expect("a file of the run");
    fs::write(path, bytes).expect("a writable folder");
}

/// All files below a folder that are not empty, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("a folder").flatten().map(|one| one.path()).collect();
    entries.sort();
    let inside = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    let found = entries.into_iter().flat_map(inside);
    found.filter(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)).collect()
}

fn text(output: &std::process::Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}").replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A finished run of the tiny pipeline.
struct Finished {
    sandbox: Sandbox,
    store: Store,
    dice: Dice,
    /// The digests of the stages' artefacts with their ids; of equal artefacts, the last.
    stages: BTreeMap<String, String>,
}

impl Finished {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        teacher(&sandbox);
        sandbox.write(FILE, &pipeline());
        expect_code(&sandbox.run(&["run", FILE]), 0);
        let stages = sandbox.digests("tiny").into_iter().map(|(id, digest)| (digest, id)).collect();
        let store = Store::open(&sandbox.path("cache")).expect("a cache");
        Self { store, stages, dice: Dice(0x9e37_79b9_7f4a_7c15), sandbox }
    }

    fn cache(&self, folder: &str) -> Vec<PathBuf> {
        files(&self.sandbox.path("cache/v1").join(folder))
    }

    /// The keys of entries: of one key by its file, or of those whose artefact has a digest.
    fn keys(&self, wanted: impl Fn(&str, &Value) -> bool) -> Vec<Digest> {
        let mut keys = Vec::new();
        for file in self.cache("entries") {
            let key = file.file_stem().expect("KEY.json").to_string_lossy().into_owned();
            let entry: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).unwrap_or_default();
            if wanted(&key, &entry) {
                keys.push(key.parse().expect("a key"));
            }
        }
        keys
    }

    #[track_caller]
    fn is_damaged(&self, keys: &[Digest], place: &str) {
        assert!(!keys.is_empty(), "{place}: no entry has it");
        for key in keys {
            let found = self.store.lookup(key).expect("the cache can be read");
            assert!(matches!(found, Lookup::Damaged(_)), "{place}: {found:?}");
        }
    }

    /// The commands that read an artefact of a stage.
    fn artefact(&mut self) {
        let flipped = Flipped::any(&self.cache("artefacts"), &mut self.dice);
        let place = &flipped.place;
        let artefacts = self.sandbox.path("cache/v1/artefacts");
        let inside = flipped.path.strip_prefix(artefacts).expect("a file of an artefact");
        let digest = inside.iter().next().expect("a folder").to_string_lossy().into_owned();
        let inside: PathBuf = inside.iter().skip(1).collect();
        let stage = self.stages.get(&digest).cloned();
        if inside.ends_with(".timings.json") {
            expect(&self.sandbox.run(&["report", "runs/tiny"]), 4, &["report::damaged", ".timings.json"]);
            return;
        }
        let keys = self.keys(|_, entry| entry["digest"] == *digest);
        self.is_damaged(&keys, place);
        // An intermediate artefact is read by no command but `run`, which looks it up as above.
        let Some(stage) = stage else { return };
        let plan = text(&self.sandbox.run(&["plan", FILE]));
        let folder = format!("runs/tiny/{stage}");
        let named = format!("{folder}/{}", inside.display());
        // The program names it by an absolute path, as the environment gives the folder of runs.
        assert!(plan.contains(&format!("{named} is damaged")), "{place}: {plan}");
        let words = ["is damaged", named.as_str()];
        let model = match stage.as_str() {
            "single" => Some(format!("{folder}/model.safetensors")),
            "folder" => Some(format!("{folder}/model")),
            "teacher" | "student" | "retrained" => Some(folder),
            _ => None,
        };
        if let Some(model) = model {
            expect(&self.sandbox.run(&["inspect", &model]), 4, &words);
            expect(&self.sandbox.run(&["export", &model, "--to", "diffusers"]), 4, &words);
            expect(&self.sandbox.run(&["generate", &model, "--prompt", "a star"]), 4, &words);
        }
        if !matches!(stage.as_str(), "teacher" | "points" | "student") {
            expect(&self.sandbox.run(&["report", "runs/tiny", "--out", "page.html"]), 4, &words);
        }
    }

    fn entry(&mut self) {
        let flipped = Flipped::any(&self.cache("entries"), &mut self.dice);
        let keys = self.keys(|key, _| flipped.path.ends_with(format!("{key}.json")));
        self.is_damaged(&keys, &flipped.place);
    }

    /// Memos and manifests of the last run are only ever not believed: all is cached as before.
    fn memory(&mut self, folder: &str) {
        let flipped = Flipped::any(&self.cache(folder), &mut self.dice);
        let read = sealed::read::<Value>(&flipped.path);
        assert!(read.is_err(), "{}: {read:?}", flipped.place);
        expect_code(&self.sandbox.run(&["plan", FILE, "--exit-code"]), 0);
    }

    fn record(&mut self) {
        let _flipped = Flipped::any(&[self.sandbox.path("runs/tiny/run.json")], &mut self.dice);
        expect(&self.sandbox.run(&["report", "runs/tiny"]), 4, &["run.json", "report::damaged_record"]);
    }

    /// The user's model is another one, which no key knows, or none at all.
    fn model(&mut self) {
        let flipped = Flipped::any(&files(&self.sandbox.path("model")), &mut self.dice);
        let plan = self.sandbox.run(&["plan", FILE, "--exit-code"]);
        assert!(matches!(plan.status.code(), Some(4 | 8)), "{}: {}", flipped.place, text(&plan));
    }
}

/// Runs the training until an event that `is_end` knows, and sends a signal. Gives the types of the events so far.
fn train_until(sandbox: &Sandbox, signal: libc::c_int, is_end: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut command =
        sandbox.command(&["run", FILE, "--set", NEVER_REACHED, "--until", "retrained", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    let (mut types, mut ended) = (Vec::new(), false);
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let Some(line) = line.ok().filter(|_| !ended) else { continue };
        let line: Value = serde_json::from_str(&line).expect("each line is JSON");
        types.push(line["event"]["type"].as_str().expect("a type").to_owned());
        if is_end(&line["event"]) {
            // SAFETY: the child is ours and not waited for yet, so its number is its own.
            assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
            ended = true;
        }
    }
    assert!(!child.wait().expect("a child to wait for").success(), "the training ended: {types:?}");
    types
}

/// Progress of the training, after so many steps.
fn steps(least: u64) -> impl Fn(&Value) -> bool {
    move |event| {
        event["type"] == "stage-progress" && event["unit"] == "steps" && event["done"].as_u64() >= Some(least)
    }
}

/// Interrupts the training after a few steps, and gives the files of its last checkpoint.
fn interrupted(sandbox: &Sandbox) -> Vec<PathBuf> {
    train_until(sandbox, libc::SIGINT, steps(1));
    let work = fs::read_dir(sandbox.path("cache/v1/work")).expect("unfinished work").flatten();
    let mut files: Vec<_> = work.flat_map(|key| files(&key.path().join("checkpoint"))).collect();
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let newest = files.iter().map(|path| name(path)).filter(|name| name.starts_with("distill-")).max();
    let newest = newest.expect("a checkpoint");
    files.retain(|path| name(path).contains(&newest) || name(path) == "losses.jsonl");
    assert_eq!(files.len(), 3, "{files:?}");
    files
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut run = Finished::new();
    (0..130).for_each(|_| run.artefact());
    (0..40).for_each(|_| run.entry());
    (0..30).for_each(|_| run.memory("memo"));
    (0..20).for_each(|_| run.memory("last"));
    (0..30).for_each(|_| run.record());
    (0..30).for_each(|_| run.model());
    // All is as it was.
    expect_code(&run.sandbox.run(&["plan", FILE, "--exit-code"]), 0);
    expect_code(&run.sandbox.run(&["report", "runs/tiny"]), 0);
    expect_code(&run.sandbox.run(&["inspect", "runs/tiny/retrained"]), 0);

    // And 20 in the checkpoint of a training.
    let files = interrupted(&run.sandbox);
    let contents: Vec<_> = files.iter().map(|path| fs::read(path).expect("a file")).collect();
    for _ in 0..20 {
        files.iter().zip(&contents).for_each(|(path, bytes)| fs::write(path, bytes).expect("writable"));
        let flipped = Flipped::any(&files, &mut run.dice);
        let told = train_until(&run.sandbox, libc::SIGKILL, |event| {
            event["type"] == "checkpoint-dropped" || steps(0)(event)
        });
        let last = told.last().map(String::as_str);
        assert_eq!(last, Some("checkpoint-dropped"), "{}: {told:?}", flipped.place);
        std::mem::forget(flipped);
    }
}

#[test]
fn a_model_that_is_not_there_says_where_the_run_stopped() {
    let sandbox = Sandbox::new();
    teacher(&sandbox);
    sandbox.write(FILE, &pipeline());
    interrupted(&sandbox);
    for stage in ["retrained", "retrained/unet", "single"] {
        let path = format!("runs/tiny/{stage}");
        let words = [
            "is not there yet",
            "stage `retrained` was interrupted after",
            "of 1000000 steps",
            "run tiny.yaml",
        ];
        expect(&sandbox.run(&["inspect", &path]), 4, &words);
        expect(&sandbox.run(&["export", &path, "--to", "diffusers"]), 4, &words);
        expect(&sandbox.run(&["generate", &path, "--prompt", "a star"]), 4, &words);
    }
    expect_code(&sandbox.run(&["inspect", "runs/tiny/student"]), 0);
    let artefact = fs::canonicalize(sandbox.path("runs/tiny/student")).expect("an artefact");
    fs::remove_dir_all(artefact).expect("writable");
    expect(
        &sandbox.run(&["inspect", "runs/tiny/student"]),
        4,
        &["runs/tiny/student is missing", "run tiny.yaml"],
    );
    expect(&sandbox.run(&["inspect", "runs/tiny/absent"]), 4, &["runs/tiny/absent", "model::no_model"]);
}

#[test]
fn a_training_resumes_only_from_whole_checkpoints_and_says_so() {
    let sandbox = Sandbox::new();
    teacher(&sandbox);
    sandbox.write(FILE, &pipeline());
    let kill = |until: u64| train_until(&sandbox, libc::SIGKILL, steps(until));
    let says = |told: &[String], name: &str| told.iter().any(|one| one == name);
    for _ in 0..2 {
        let told = kill(0);
        assert!(!says(&told, "stage-resumed"), "no checkpoint was written yet: {told:?}");
    }
    let files = interrupted(&sandbox);
    assert!(says(&kill(0), "stage-resumed"));
    let weights =
        files.iter().find(|path| path.to_string_lossy().contains("/distill-")).expect("a checkpoint");
    fs::write(weights, "").expect("writable");
    let told = kill(1);
    assert!(says(&told, "checkpoint-dropped") && !says(&told, "stage-resumed"), "{told:?}");
}
