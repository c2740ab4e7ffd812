//! Stages of one run at the same time: the same bytes, the same record, and every event.

use std::io::{BufRead, BufReader, Read};
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::common::{Sandbox, expect, expect_code};

const PIPELINE: &str = include_str!("../../pipelines/side-by-side.yaml");

/// The events that a run told on stdout.
fn events(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let event = |line: &str| serde_json::from_str::<Value>(line).expect("each line is JSON")["event"].clone();
    text.lines().map(event).collect()
}

/// The stages that ran at the same time as each event of this type and stage, without itself.
fn beside(events: &[Value], kind: &str) -> Vec<(String, Vec<String>)> {
    let mut running: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for event in events {
        let stage = event["stage"].as_str().unwrap_or_default().to_owned();
        if event["type"] == kind {
            found.push((stage.clone(), running.iter().filter(|other| **other != stage).cloned().collect()));
        }
        match event["type"].as_str() {
            Some("stage-started") => running.push(stage),
            Some("stage-done" | "stage-failed" | "stage-interrupted") => {
                running.retain(|other| *other != stage)
            }
            _ => {}
        }
    }
    assert!(running.is_empty(), "{running:?} did not end");
    found
}

#[test]
fn a_sweep_on_two_places_has_the_bytes_and_the_record_of_one() {
    let (one, two) = (Sandbox::new(), Sandbox::new());
    let files =
        [&one, &two].map(|sandbox| sandbox.write("sweep.yaml", PIPELINE).to_string_lossy().into_owned());
    expect_code(&one.run(&["run", &files[0]]), 0);
    let ran = two.run(&["run", &files[1], "--jobs", "2", "--threads", "2", "--json"]);
    expect_code(&ran, 0);
    // The times differ from run to run, so their files are not hashed.
    let digests = |sandbox: &Sandbox| {
        let mut digests = sandbox.digests("side-by-side");
        digests.retain(|(stage, _)| stage != "times");
        digests
    };
    assert_eq!(digests(&two), digests(&one), "the stages of the record are in the same order too");

    let told = events(&ran);
    let started = beside(&told, "stage-started");
    let together = started.iter().filter(|(_, others)| !others.is_empty()).count();
    assert!(together >= 3, "{together} of {started:?}");
    let of_times = |kind: &str| beside(&told, kind).into_iter().find(|(stage, _)| stage == "times");
    for kind in ["stage-started", "stage-done"] {
        assert_eq!(of_times(kind), Some(("times".to_owned(), Vec::new())), "it measures");
    }
    let note = told.iter().find(|event| event["type"] == "stage-note" && event["stage"] == "times");
    assert!(note.is_some_and(|note| note["text"].to_string().contains("runs alone")), "{note:?}");
    let peaks =
        told.iter().filter(|event| event["type"] == "stage-done").map(|event| event["peak_bytes"].as_u64());
    assert!(peaks.clone().count() == 16 && peaks.clone().all(|peak| peak > Some(1 << 20)), "{peaks:?}");

    a_cached_run_starts_nothing(&two, &files[1]);
    a_failure_is_told_as_by_one_process(&two, &files[1]);
}

fn a_cached_run_starts_nothing(sandbox: &Sandbox, file: &str) {
    let again = sandbox.run(&["run", file, "--jobs", "2", "--json"]);
    expect_code(&again, 0);
    let last = events(&again).pop().expect("an event");
    assert_eq!((last["ran"].as_u64(), last["cached"].as_u64()), (Some(0), Some(16)), "{last}");
}

/// Two branches whose ratio cannot be reached, and two that can be made.
fn a_failure_is_told_as_by_one_process(sandbox: &Sandbox, file: &str) {
    let over = "selection.ratio=0.999,0.6";
    let arguments =
        ["run", file, "--over", "selection.criterion=magnitude,random", "--over", over, "--keep-going"];
    let two = sandbox.run(&[&arguments[..], &["--jobs", "2"]].concat());
    let one = sandbox.run(&arguments);
    assert_eq!(two.status.code(), one.status.code());
    expect(
        &two,
        one.status.code().unwrap_or_default(),
        &["2 stages failed", "select::", "selection@criterion=random,ratio=0.999"],
    );
    let [two, one] = [two, one].map(|output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.split_once("2 stages failed").map(|(_, errors)| errors.to_owned())
    });
    assert_eq!(two, one, "the errors have the same order and the same words");
}

#[test]
fn a_signal_stops_all_and_the_same_command_resumes() {
    let sandbox = Sandbox::new();
    let text = "\
format: 1
name: long
seed: 7
stages:
  - { id: teacher, use: load, with: { model: \"{nano}\" } }
  - id: points
    use: calibrate
    with: { model: teacher, prompts: \"{nano}/prompts/calibration.txt\", samples: 16, drawing: { steps: 4, guidance-scale: 1, batch: 1 } }
sweep:
  points.samples: [16, 24]
";
    let file = sandbox.write("long.yaml", text).to_string_lossy().into_owned();
    let command = ["run", &file, "--jobs", "2", "--json"];
    let mut child =
        sandbox.command(&command).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut told = String::new();
    // Both have a trajectory in their checkpoints.
    let progress = |samples| format!("\"stage-progress\",\"stage\":\"points@samples={samples}\"");
    while !(told.contains(&progress(16)) && told.contains(&progress(24))) {
        told += &lines.next().expect("it goes on").expect("text");
    }
    // SAFETY: the child is ours and not waited for yet, so its number is its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGUSR1) }, 0);
    lines.for_each(|line| told += &line.expect("text"));
    assert_eq!(child.wait().expect("it is ours").code(), Some(130), "{told}");
    assert_eq!(told.matches("\"stage-interrupted\"").count(), 2, "{told}");
    let again = sandbox.run(&command);
    expect_code(&again, 0);
    let resumed = events(&again).iter().filter(|event| event["type"] == "stage-resumed").count();
    assert_eq!(resumed, 2, "each from its own checkpoint");
}

#[test]
fn a_worker_that_is_killed_costs_its_stage_and_not_the_run() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("sweep.yaml", PIPELINE).to_string_lossy().into_owned();
    let over =
        ["--over", "points.samples=8,12", "--until", "points", "--keep-going", "--jobs", "2", "--json"];
    let command = [&["run", &file], &over[..]].concat();
    let mut child =
        sandbox.command(&command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let started = |line: &str| line.contains("stage-started\",\"stage\":\"points");
    while !started(&lines.next().expect("it goes on").expect("text")) {}
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let worker = std::fs::read_to_string(children).expect("a list of processes");
    let worker: i32 = worker.split_whitespace().next().expect("a worker").parse().expect("a number");
    // SAFETY: a child of our child, which it has not waited for: it is at work.
    assert_eq!(unsafe { libc::kill(worker, libc::SIGKILL) }, 0);
    let done = lines.filter(|line| line.as_ref().is_ok_and(|line| line.contains("stage-done"))).count();
    assert_eq!(child.wait().expect("it is ours").code(), Some(6));
    let mut errors = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
    assert!(errors.contains("run::worker_gone") && errors.contains("signal: 9"), "{errors}");
    assert_eq!(done, 1, "the other stage was made");
    expect_code(&sandbox.run(&command), 0);
}

#[test]
fn places_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("sweep.yaml", PIPELINE).to_string_lossy().into_owned();
    let refused = |arguments: &[&str], code, words: &[&str]| {
        expect(&sandbox.run(&[&["run", &file], arguments].concat()), code, words);
    };
    refused(&["--jobs", "0"], 2, &["--jobs", "from 1 to 1024"]);
    refused(&["--devices", "cpu,cpu"], 2, &["`cpu` is named twice"]);
    refused(&["--jobs", "2", "--ranks", "2"], 2, &["cli::jobs_of_ranks", "`--jobs`"]);
    refused(&["--devices", "cpu", "--device", "cpu"], 2, &["cannot be used with"]);
}
