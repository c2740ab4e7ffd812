//! Looking after the cache and the runs: what is there, why, whether it can be made again, and how it goes.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::common::{Sandbox, expect, expect_code};
use laptop_diff::base::{Digest, sealed};
use laptop_diff::run::RunRecord;

/// Five stages that take a second or two.
const PIPELINE: &str = include_str!("../../pipelines/five.yaml");

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("prompts.txt", "a red circle\na blue star\n");
    sandbox.write("five.yaml", PIPELINE);
    sandbox
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    expect_code(output, code);
    let text = out(output);
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in\n{text}"));
}

fn json(output: &Output) -> Value {
    expect_code(output, 0);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_run_is_listed_explained_verified_and_removed_with_what_only_it_needs() {
    let sandbox = sandbox();
    let run = |arguments: &[&str]| sandbox.run(arguments);
    let mut first = sandbox.command(&["run", "five.yaml"]);
    first.env("LAPTOP_DIFF_ON_END", r#"echo "$RUN_NAME $RUN_STATE" > ended; test -f "$RUN_REPORT"; exit 3"#);
    expect(&first.output().expect("it starts"), 0, &["`on-end` failed: exit status: 3"]);
    assert_eq!(fs::read_to_string(sandbox.path("ended")).expect("the hook ran"), "five done\n");
    says(&run(&["run", "five.yaml", "--dry-run", "--until", "scores"]), 0, &["scores", "3 cached"]);

    let listed = json(&run(&["cache", "ls", "--json"]));
    let listed = listed.as_array().expect("a list");
    assert_eq!(listed.len(), 5);
    let needed = |row: &Value| row["needed_by"][0].as_str().is_some_and(|by| by.ends_with("runs/five"));
    assert!(listed.iter().all(needed), "{listed:?}");
    says(&run(&["cache", "du"]), 0, &["score", "no run and no pin needs 0 B of it"]);

    says(&run(&["why", "five", "selection"]), 0, &["input scores", "the artefact of `scores`", "ratio"]);
    expect(&run(&["why", "five", "selektion"]), 2, &["unknown stage", "did you mean `selection`?"]);
    expect(&run(&["why", "fife", "selection"]), 2, &["there is no run fife", "did you mean `five`?"]);
    let other = ["--set", "selection.ratio=0.3", "--set", "name=other"];
    expect_code(&run(&[&["run", "five.yaml"], &other[..]].concat()), 0);
    let why = run(&["why", "other", "student", "runs/five"]);
    says(
        &why,
        0,
        &[
            "runs/other differs from `student` of runs/five",
            "  selection: ratio: 0.5 -> 0.3\n",
            "input selection",
        ],
    );
    says(&run(&["why", "other", "scores", "five"]), 0, &["have the same key"]);

    says(&run(&["verify", "five"]), 0, &["student    equal", "5 of 5 stages have the same bytes"]);
    says(&run(&["verify", "other", "--stage", "selection"]), 0, &["1 of 1 stages"]);
    let folder = sandbox.path("runs/other");
    let mut record = RunRecord::read(&folder).expect("a record");
    let selection = record.stages.iter_mut().find(|stage| stage.id.as_str() == "selection").expect("a stage");
    let artefact = selection.artefact.as_mut().expect("its artefact");
    artefact.digest = Digest::of(b"other");
    let whole = fs::read(folder.join("run.json")).expect("readable");
    sealed::write(&folder.join("run.json"), &record).expect("writable");
    let differs = run(&["verify", "other"]);
    says(&differs, 8, &["selection  differs", "4 of 5 stages", "nothing that it depends on does"]);
    fs::write(folder.join("run.json"), whole).expect("writable");
    let names = fs::read_dir(sandbox.path("cache")).expect("a cache").flatten();
    let left: Vec<_> = names
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().contains("scratch"))
        .collect();
    assert!(left.is_empty(), "{left:?}");

    expect(&run(&["cache", "gc"]), 2, &["was not told what may go", "--older-than 30d"]);
    expect(&run(&["cache", "gc", "--older-than", "30"]), 2, &["`30` is not a length of time"]);
    says(&run(&["cache", "gc", "--all"]), 0, &["there is nothing to remove"]);
    let dry = run(&["clean", "other", "--artefacts", "--dry-run"]);
    says(&dry, 0, &["would remove", "in 2 artefacts"]);
    assert!(folder.join("run.json").exists());
    fs::write(folder.join("mine.txt"), "notes").expect("writable");
    expect(&run(&["clean", "other", "--artefacts"]), 0, &["has other files and stays"]);
    assert!(folder.join("mine.txt").exists() && !folder.join("student").exists());
    says(&run(&["plan", "five.yaml", "--exit-code"]), 0, &["5 cached, 0 to run"]);

    says(&run(&["cache", "pin", "five"]), 0, &["5 keys"]);
    says(&run(&["clean", "five"]), 0, &["removed"]);
    assert!(!sandbox.path("runs/five").exists());
    says(&run(&["cache", "gc", "--all"]), 0, &["there is nothing to remove"]);
    expect(&run(&["cache", "unpin", "hous"]), 2, &["`hous` is not pinned"]);
    says(&run(&["cache", "unpin", "five"]), 0, &["unpinned"]);
    let freed = json(&run(&["cache", "gc", "--all", "--json"]));
    assert_eq!(freed["reasons"]["unneeded"]["count"], 5, "{freed}");
    assert_eq!(json(&run(&["cache", "ls", "--json"])), Value::Array(Vec::new()));
}

#[test]
fn a_collection_in_a_loop_disturbs_no_sweep() {
    let [calm, busy] = [(); 2].map(|()| sandbox());
    let sweep = ["sweep", "five.yaml", "--over", "selection.ratio=0.2,0.3,0.4,0.5,0.6"];
    expect_code(&calm.run(&sweep), 0);
    // An artefact that nobody needs, so that there is something to remove.
    expect_code(&busy.run(&["run", "five.yaml", "--set", "name=old", "--set", "seed=2"]), 0);
    fs::remove_dir_all(busy.path("runs/old")).expect("ours");
    let mut child = busy.start(&sweep);
    let mut removed = 0;
    while child.try_wait().expect("a child").is_none() {
        let gone = json(&busy.run(&["cache", "gc", "--all", "--checkpoints-older-than", "0s", "--json"]));
        removed += gone["removed"].as_array().map_or(0, Vec::len);
    }
    assert!(child.wait().expect("a child").success());
    assert!(removed > 0, "the loop removed nothing");
    assert_eq!(busy.digests("five"), calm.digests("five"));
    let log = fs::read_to_string(busy.path("runs/five/events.jsonl")).expect("a log");
    assert!(!log.contains("damage-found"), "{log}");
    expect_code(&busy.run(&["plan", "five.yaml", "--over", sweep[3], "--exit-code"]), 0);
    says(&busy.run(&["cache", "verify"]), 0, &["no damage"]);
}

/// Enters a process of another machine into the cache that says to use these keys and to work on a run.
fn process_elsewhere(sandbox: &Sandbox, name: &str, keys: &str) -> std::path::PathBuf {
    let place = sandbox.path("cache/v1");
    let lease = place.join(format!("leases/user-{name}"));
    let holder = r#"{"host":"far","system":"another","pid":7,"started":7}"#;
    fs::write(&lease, format!("{{\"id\":\"{name}\",\"holder\":{holder}}}\n{:020}\n", 0)).expect("writable");
    fs::create_dir_all(place.join("users")).expect("writable");
    let run = fs::canonicalize(sandbox.path("runs/five")).expect("a run");
    fs::write(place.join("users").join(name), format!("run {}\n{keys}\n", run.display())).expect("writable");
    lease
}

#[test]
fn what_a_process_of_another_machine_uses_stays_until_it_has_been_silent_for_long() {
    let sandbox = sandbox();
    expect_code(&sandbox.run(&["run", "five.yaml", "--until", "teacher"]), 0);
    let record: Value =
        serde_json::from_slice(&fs::read(sandbox.path("runs/five/run.json")).expect("a record"))
            .expect("JSON");
    let key = record["stages"][0]["key"].as_str().expect("a key").to_owned();
    let lease = process_elsewhere(&sandbox, "one", &key);
    let text = fs::read_to_string(&lease).expect("readable");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for beats in 1.. {
                let beat = format!("{}\n{beats:020}\n", text.lines().next().expect("a line"));
                fs::write(&lease, beat).expect("writable");
                std::thread::sleep(std::time::Duration::from_millis(500));
                if over.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
            }
        });
        expect(&sandbox.run(&["clean", "five"]), 4, &["cli::run_is_running"]);
        fs::remove_dir_all(sandbox.path("runs/five")).expect("ours");
        let kept = sandbox.run(&["cache", "gc", "--all"]);
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        says(&kept, 0, &["there is nothing to remove"]);
    });
    let begun = std::time::Instant::now();
    let dry = sandbox.run(&["cache", "gc", "--all", "--dry-run"]);
    assert!(begun.elapsed().as_secs() >= 29, "{:?}", begun.elapsed());
    expect(&dry, 0, &["process 7 on far shows no sign of life", "silent for 30 seconds"]);
    says(&dry, 0, &["would free"]);
    let begun = std::time::Instant::now();
    says(&sandbox.run(&["cache", "gc", "--all"]), 0, &["freed", "in 1 artefact"]);
    assert!(begun.elapsed().as_secs() < 10, "its lease is gone already: {:?}", begun.elapsed());
    assert_eq!(fs::read_dir(sandbox.path("cache/v1/users")).expect("there").count(), 0);
}

#[test]
fn damage_is_named_with_who_needs_it_and_repaired() {
    let sandbox = sandbox();
    expect_code(&sandbox.run(&["run", "five.yaml", "--until", "teacher"]), 0);
    let file = sandbox.path("runs/five/teacher/model_index.json");
    let real = fs::canonicalize(&file).expect("linked");
    fs::remove_file(&real).expect("ours");
    let found = sandbox.run(&["cache", "verify"]);
    says(&found, 4, &["model_index.json is missing", "needed by", "runs/five", "1 damaged"]);
    expect(&found, 4, &["`laptop-diff cache verify --repair`"]);
    expect(&sandbox.run(&["cache", "verify", "--repair"]), 0, &["removed 1 damaged"]);
    says(&sandbox.run(&["cache", "verify"]), 0, &["0 artefacts", "no damage"]);
    expect_code(&sandbox.run(&["run", "five.yaml", "--until", "teacher"]), 0);
    assert!(file.exists());
}

#[test]
fn a_new_pipeline_fits_its_model_and_the_shell_knows_the_commands() {
    let sandbox = Sandbox::new();
    let nano = crate::common::root().join("examples/nano-sd");
    // A model without prompts of its own.
    let model = sandbox.path("my model");
    fs::create_dir(&model).expect("writable");
    for part in ["model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        std::os::unix::fs::symlink(nano.join(part), model.join(part)).expect("writable");
    }
    says(&sandbox.run(&["init", "my model"]), 0, &["my-model.yaml"]);
    says(&sandbox.run(&["plan", "my-model.yaml"]), 0, &["retrained", "portable"]);
    assert!(sandbox.path("prompts/training.txt").exists());
    expect(&sandbox.run(&["init", "my model"]), 4, &["my-model.yaml exists already"]);
    says(
        &sandbox.run(&["init", &nano.to_string_lossy(), "--out", "there/nano.yaml"]),
        0,
        &["there/nano.yaml"],
    );
    says(&sandbox.run(&["plan", "there/nano.yaml"]), 0, &["10 stages"]);
    assert!(!sandbox.path("there/prompts").exists(), "the model has its own");
    fs::remove_file(model.join("vae")).expect("ours");
    expect(&sandbox.run(&["init", "my model", "--out", "x.yaml"]), 4, &["vae"]);

    says(&sandbox.run(&["completions", "bash"]), 0, &["complete", "laptop-diff"]);
    says(&sandbox.run(&["man"]), 0, &[".TH laptop-diff"]);
    says(&sandbox.run(&["man", "--out", "man1"]), 0, &["man1"]);
    assert!(sandbox.path("man1/laptop-diff-cache-gc.1").exists());
}
