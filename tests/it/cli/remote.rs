//! Machines that share their artefacts by a folder: the second one computes nothing, nothing damaged is used, and a remote
//! that is away ends no run.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::common::{Sandbox, expect, expect_code};

/// Five stages that take a second or two.
pub(super) const PIPELINE: &str = include_str!("../../pipelines/five.yaml");

/// A machine with that pipeline.
pub(super) fn machine() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("prompts.txt", "a red circle\na blue star\n");
    sandbox.write("five.yaml", PIPELINE);
    sandbox
}

/// A machine that shares its artefacts by a folder.
fn sharing(lab: &Sandbox) -> Sandbox {
    let sandbox = machine();
    sandbox.write("laptop-diff.yaml", &format!("remote: {}\n", lab.path("remote").display()));
    sandbox
}

fn lab() -> Sandbox {
    let lab = Sandbox::new();
    fs::create_dir(lab.path("remote")).expect("an empty folder");
    lab
}

pub(super) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The events of a run of one type.
pub(super) fn events(sandbox: &Sandbox, kind: &str) -> Vec<Value> {
    let log = fs::read_to_string(sandbox.path("runs/five/events.jsonl")).expect("a log");
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["event"].take());
    events.filter(|event| event["type"] == kind).collect()
}

fn blobs(lab: &Sandbox) -> Vec<PathBuf> {
    let blobs = fs::read_dir(lab.path("remote/v1/blobs")).expect("blobs");
    blobs.flatten().map(|entry| entry.path()).collect()
}

#[test]
fn a_second_machine_computes_nothing_and_has_equal_digests_and_times() {
    let (lab, run) = (lab(), ["run", "five.yaml"]);
    let (one, two, three) = (sharing(&lab), sharing(&lab), machine());
    expect(&one.run(&run), 0, &["remote", "scores: sent", "5 ran, 0 cached"]);
    expect(&two.run(&run), 0, &["student: fetched", "0 ran, 5 cached"]);
    assert_eq!(two.digests("five"), one.digests("five"));
    let seconds = |event: Value| (event["stage"].clone(), event["seconds"].clone());
    let made: Vec<_> = events(&one, "stage-done").into_iter().map(seconds).collect();
    let found: Vec<_> = events(&two, "stage-cached").into_iter().map(seconds).collect();
    assert_eq!((made.len(), &made), (5, &found));
    expect_code(&two.run(&["cache", "verify"]), 0);
    expect_code(&two.run(&["verify", "five"]), 0);

    // Workers share as well.
    let four = sharing(&lab);
    expect(&four.run(&["run", "five.yaml", "--jobs", "2"]), 0, &["0 ran, 5 cached"]);
    assert_eq!(four.digests("five"), one.digests("five"));

    // By hand, for a machine whose settings name no remote.
    expect(&three.run(&["cache", "pull"]), 3, &["the settings name no remote", "remote: s3://BUCKET/PREFIX"]);
    let address = lab.path("remote").display().to_string();
    fs::create_dir_all(three.path("runs/five")).expect("writable");
    fs::copy(one.path("runs/five/run.json"), three.path("runs/five/run.json")).expect("a record");
    let pulled = three.run(&["cache", "pull", "five", "--remote", &address]);
    expect_code(&pulled, 0);
    assert!(String::from_utf8_lossy(&pulled.stdout).contains("fetched 5 of 5 artefacts"), "{pulled:?}");
    expect(&three.run(&["run", "five.yaml"]), 0, &["0 ran, 5 cached"]);
}

#[test]
fn what_was_damaged_in_the_remote_is_refused_made_anew_and_replaced() {
    let (lab, run) = (lab(), ["run", "five.yaml"]);
    let (one, two, three) = (sharing(&lab), sharing(&lab), sharing(&lab));
    expect_code(&one.run(&run), 0);
    let all = blobs(&lab);
    assert!(all.len() > 5, "{all:?}");
    for (index, blob) in all.iter().enumerate() {
        let mut bytes = fs::read(blob).expect("readable");
        match index % 2 {
            0 => bytes.truncate(bytes.len() / 2),
            _ => bytes[0] ^= 1,
        }
        fs::write(blob, bytes).expect("writable");
    }
    // A refused artefact ends `pull` with a code of its own, but not a run.
    let pulled = two.run(&["cache", "pull", "--json"]);
    expect_code(&pulled, 4);
    let rows: Value = serde_json::from_slice(&pulled.stdout).expect("JSON");
    let rows = rows.as_array().expect("a list");
    assert!(rows.len() == 5 && rows.iter().all(|row| row["outcome"] == "refused"), "{rows:?}");
    expect(&two.run(&run), 0, &["refused, and made anew", "5 ran, 0 cached"]);
    assert_eq!(two.digests("five"), one.digests("five"));
    expect(&three.run(&run), 0, &["0 ran, 5 cached"]);
}

#[test]
fn a_push_that_was_cut_off_goes_on_and_a_remote_that_takes_nothing_ends_no_run() {
    let (lab, run) = (lab(), ["run", "five.yaml"]);
    let (one, two) = (sharing(&lab), sharing(&lab));
    fs::write(lab.path("remote/v1"), "in the place of a folder").expect("writable");
    let ran = one.run(&run);
    expect(
        &ran,
        0,
        &["going on with the local cache", "not sent: `laptop-diff cache push`", "5 ran, 0 cached"],
    );
    assert_eq!(
        err(&ran).matches("going on with the local cache").count(),
        1,
        "it is told once: {}",
        err(&ran)
    );
    expect(&one.run(&["cache", "push"]), 4, &["cannot be read", "the same command goes on"]);
    fs::remove_file(lab.path("remote/v1")).expect("ours");
    let pushed = one.run(&["cache", "push", "--json"]);
    expect_code(&pushed, 0);
    let key = events(&one, "stage-done")[2]["key"].as_str().expect("text").to_owned();
    let entry = lab.path(&format!("remote/v1/entries/{key}.json"));
    // As if the machine had died between the files and the entry.
    fs::remove_file(&entry).expect("it was sent");
    let pulled = two.run(&["cache", "pull", &key[..12]]);
    expect(&pulled, 2, &["no run and no key begins"]);
    let before = blobs(&lab).len();
    let again = one.run(&["cache", "push", "five"]);
    expect_code(&again, 0);
    let text = String::from_utf8_lossy(&again.stdout);
    assert!(text.contains("sent 1 of 5 artefacts") && text.contains("4 were there already"), "{text}");
    assert_eq!(blobs(&lab).len(), before);
    expect_code(&two.run(&["cache", "pull", &key[..12]]), 0);
    expect(&two.run(&run), 0, &["0 ran, 5 cached"]);
}

#[test]
fn an_address_with_credentials_is_refused_and_they_are_told_nowhere() {
    let sandbox = machine();
    let secret = "SENTINEL0SECRET";
    for address in [format!("s3://KEY:{secret}@lab/models"), format!("az://lab?sig={secret}")] {
        // Not even as a neighbour of another mistake.
        sandbox.write("laptop-diff.yaml", &format!("remote: {address}\ncahce: x\n"));
        let other = sandbox.run(&["run", "five.yaml"]);
        expect_code(&other, 3);
        sandbox.write("laptop-diff.yaml", &format!("remote: {address}\n"));
        let by_file = sandbox.run(&["run", "five.yaml"]);
        expect(&by_file, 3, &["`remote` of", "laptop-diff.yaml", "credentials come from the environment"]);
        sandbox.write("laptop-diff.yaml", "{}\n");
        let mut command = sandbox.command(&["run", "five.yaml"]);
        let by_variable = command.env("LAPTOP_DIFF_REMOTE", &address).output().expect("it starts");
        expect(&by_variable, 3, &["LAPTOP_DIFF_REMOTE", "credentials come from the environment"]);
        for output in [other, by_file, by_variable] {
            assert!(!err(&output).contains(secret), "{}", err(&output));
        }
    }
    assert!(!sandbox.path("runs").exists());
}

#[cfg(not(feature = "remote"))]
#[test]
fn a_bucket_needs_a_build_that_knows_buckets() {
    let sandbox = machine();
    sandbox.write("laptop-diff.yaml", "remote: s3://lab/models\n");
    expect(
        &sandbox.run(&["run", "five.yaml"]),
        3,
        &["built without remotes in buckets", "--features remote"],
    );
}
