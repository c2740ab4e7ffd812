//! A training seen from outside: looked at before its end, extended after it, watched while it runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::tracking::MlflowServer;
use crate::common::{Sandbox, expect, expect_code};

/// The whole way to a student, as short as it can be; `{training}` are the parameters of its retraining.
const PIPELINE: &str = r#"
format: 1
name: small
seed: 7
stages:
  - { id: teacher, use: load, with: { model: "{nano}" } }
  - id: points
    use: calibrate
    with: { model: teacher, prompts: "{nano}/prompts/calibration.txt", samples: 8, drawing: { steps: 2, guidance-scale: 1, batch: 4 } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, criteria: [magnitude], additivity-sets: 0, batch: 4 } }
  - { id: selection, use: select, with: { scores: scores, criterion: magnitude, ratio: 0.5 } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - { id: retrained, use: distill, with: { teacher: teacher, student: student, data: points, training: {training} } }
"#;

fn pipeline(sandbox: &Sandbox, training: &str) -> String {
    let file = sandbox.write("small.yaml", &PIPELINE.replace("{training}", training));
    file.to_string_lossy().into_owned()
}

/// The checkpoints in the cache, the newest first.
fn checkpoints(sandbox: &Sandbox) -> Vec<PathBuf> {
    let inside =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = inside(sandbox.path("cache/v1/work")).map(|work| work.join("checkpoint"));
    let is_ours =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("distill-"));
    let mut found: Vec<PathBuf> = folders.flat_map(inside).filter(is_ours).collect();
    found.sort_by(|one, two| two.cmp(one));
    found
}

/// Starts a run that never ends, and waits for two checkpoints.
fn begun(sandbox: &Sandbox, file: &str) -> Child {
    let mut command = sandbox.command(&["run", file]);
    command.env("LAPTOP_DIFF_CHECKPOINT_EVERY_STEPS", "1").env("LAPTOP_DIFF_KEEP_CHECKPOINTS", "3");
    let log = fs::File::create(sandbox.path("log")).expect("a writable file");
    let mut child = command.stdout(log.try_clone().expect("a file")).stderr(log).spawn().expect("it starts");
    let begun = Instant::now();
    while checkpoints(sandbox).len() < 3 {
        let ended = child.try_wait().expect("the process can be asked");
        let text = || fs::read_to_string(sandbox.path("log")).unwrap_or_default();
        assert!(ended.is_none() && begun.elapsed() < Duration::from_secs(300), "{}", text());
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

#[test]
fn a_training_can_be_looked_at_before_its_end() {
    let sandbox = Sandbox::new();
    let file = pipeline(&sandbox, "{ steps: 100000, batch-size: 2, normalisation-batches: 1 }");
    let mut child = begun(&sandbox, &file);
    let look = |model: &str| {
        let arguments = ["generate", model, "--prompt", "a star", "--steps", "1", "--guidance", "1"];
        sandbox.run(&arguments)
    };
    expect(
        &look("runs/small/retrained@latest"),
        0,
        &["the moving average of the weights after step", "which is running"],
    );
    expect_code(&sandbox.run(&["report", "runs/small"]), 0);
    let page = || fs::read_to_string(sandbox.path("runs/small/report.html")).expect("a report");
    assert!(page().contains("It is running.") && page().contains("This run is not over"));

    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let found = checkpoints(&sandbox);
    let step = |path: &Path| -> u64 {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        name.trim_start_matches("distill-").parse().expect("a step")
    };
    let (newest, before) = (step(&found[0]), step(&found[1]));
    let words = format!("after step {newest} of `retrained`, which is not running");
    expect(&sandbox.run(&["inspect", "runs/small/retrained@latest"]), 0, &[&words]);
    let words = format!("after step {before} of `retrained`");
    expect(&look(&format!("runs/small/retrained@{before}")), 0, &[&words]);
    // Looking changes nothing, and what is damaged is said.
    fs::OpenOptions::new().write(true).open(&found[0]).and_then(|file| file.set_len(100)).expect("a file");
    let damaged =
        format!("{} is damaged and not used", found[0].file_name().expect("a file").to_string_lossy());
    expect(&look("runs/small/retrained@latest"), 0, &[&damaged, &words]);
    assert_eq!(checkpoints(&sandbox), found);
    expect(
        &look("runs/small/retrained@7777777"),
        4,
        &["there is no runs/small/retrained@7777777", "has no whole checkpoint of step 7777777"],
    );
    expect(
        &look("runs/small/scores@latest"),
        4,
        &["`scores` is finished: its result is used", "is not there yet"],
    );
    expect_code(&sandbox.run(&["report", "runs/small"]), 0);
    assert!(page().contains("It is not finished") && !page().contains("This run is not over"));
}

#[test]
fn more_steps_go_on_where_a_finished_training_ended() {
    let training = "{ steps: 3, batch-size: 2, normalisation-batches: 1, history-every: 2, \
                    validation: { every: 2, rows: 3, prompts: [a star], steps: 1, guidance-scale: 1 } }";
    let (sandbox, other) = (Sandbox::new(), Sandbox::new());
    let (file, whole) = (pipeline(&sandbox, training), pipeline(&other, training));
    let more = ["--set", "retrained.training.steps=5"];
    expect(&sandbox.run(&["run", &file]), 0, &["is kept in the cache: more steps can go on from it"]);
    let plan = sandbox.run(&["plan", &file, more[0], more[1]]);
    let text = String::from_utf8_lossy(&plan.stdout);
    for words in ["steps: 3 -> 5", "goes on from the state of an earlier run at 3 steps"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    expect(
        &sandbox.run(&["run", &file, more[0], more[1]]),
        0,
        &["goes on from the state of an earlier run after 3 steps"],
    );
    expect_code(&other.run(&["run", &whole, more[0], more[1]]), 0);
    assert_eq!(sandbox.digests("small"), other.digests("small"));
    let names: Vec<String> = [0, 2, 4, 5].iter().map(|step| format!("{step:09}-000.png")).collect();
    for name in &names {
        assert!(sandbox.path("runs/small/retrained/validation").join(name).is_file(), "{name}");
    }
    let page = fs::read_to_string(sandbox.path("runs/small/report.html")).expect("a report");
    assert!(page.contains("Pictures while it trained") && page.contains("On held-out rows"));

    // Under a schedule that depends on the number of steps, nothing can be used, and `plan` says so.
    let cosine = ["--set", "retrained.training.learning-rate-schedule=cosine"];
    expect_code(&sandbox.run(&["run", &file, cosine[0], cosine[1]]), 0);
    let plan = sandbox.run(&["plan", &file, cosine[0], cosine[1], more[0], more[1]]);
    let text = String::from_utf8_lossy(&plan.stdout);
    assert!(text.contains("`learning-rate-schedule: cosine` depends on `steps`: starts anew"), "{text}");
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

/// A run with event files and a server, of which the first attempt is killed.
fn watched(sandbox: &Sandbox, server: &str) {
    let training = "{ steps: 12, batch-size: 2, normalisation-batches: 1, \
                    validation: { every: 6, rows: 3, prompts: [a star], steps: 1, guidance-scale: 1 } }";
    let file = pipeline(sandbox, training);
    let run = || {
        let mut command = sandbox.command(&["run", &file]);
        command.env("LAPTOP_DIFF_TENSORBOARD", "true").env("LAPTOP_DIFF_MLFLOW", server);
        command.env("LAPTOP_DIFF_CHECKPOINT_EVERY_STEPS", "1");
        command
    };
    let mut child = run().spawn().expect("the program starts");
    while checkpoints(sandbox).len() < 2 {
        assert!(child.try_wait().expect("the process can be asked").is_none(), "it ended too early");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    expect_code(&run().output().expect("the program starts"), 0);
}

#[test]
fn a_training_writes_event_files_and_a_server_that_is_away_is_noted_once() {
    let sandbox = Sandbox::new();
    let file = pipeline(&sandbox, "{ steps: 3, batch-size: 2, normalisation-batches: 1 }");
    let mut command = sandbox.command(&["run", &file]);
    // Nobody listens on the port of discard.
    command.env("LAPTOP_DIFF_TENSORBOARD", "true").env("LAPTOP_DIFF_MLFLOW", "http://127.0.0.1:9");
    let output = command.output().expect("the program starts");
    expect_code(&output, 0);
    assert_eq!(String::from_utf8_lossy(&output.stderr).matches("MLflow at http://127.0.0.1:9").count(), 1);
    let events = files(&sandbox.path("runs/small/tensorboard/retrained"));
    assert!(
        matches!(&events[..], [one] if one.to_string_lossy().contains("events.out.tfevents.")),
        "{events:?}"
    );
    let bytes = fs::read(&events[0]).expect("an event file");
    for tag in ["brain.Event:2", "loss/total", "training/learning_rate"] {
        assert!(bytes.windows(tag.len()).any(|window| window == tag.as_bytes()), "{tag}");
    }
}

#[test]
#[ignore = "needs Python with tensorboard and mlflow, named by LAPTOP_DIFF_TEST_WATCH_PYTHON"]
fn tensorboard_and_mlflow_show_each_step_once() {
    let python =
        std::env::var("LAPTOP_DIFF_TEST_WATCH_PYTHON").expect("LAPTOP_DIFF_TEST_WATCH_PYTHON is set");
    let sandbox = Sandbox::new();
    let server = MlflowServer::start(&python, &sandbox);
    watched(&sandbox, &server.address);
    let script = crate::common::root().join("tests/golden_distill/watched.py");
    let folder = sandbox.path("runs/small/tensorboard/retrained");
    let read = std::process::Command::new(&python).arg(script).arg(folder).arg(&server.address).output();
    expect_code(&read.expect("Python starts"), 0);
}
