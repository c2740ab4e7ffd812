//! `tests/gpu/run.sh` without a GPU: its steps, limits and results, with executables that only say how they were called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn script(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).expect("a new file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("our own file");
}

/// A program that leaves a run.json with these digests in its first and its second run, and of an evaluation that is never the
/// same.
fn two_runs(folder: &Path, [one, two]: [&str; 2]) {
    let stage =
        |id: &str, stage: &str| format!(r#"{{"id":"{id}","stage":"{stage}","artefact":{{"digest":"%s"}}}}"#);
    let record = format!(r#"{{"stages":[{},{}]}}"#, stage("a", "load"), stage("b", "evaluate"));
    let text = [
        "while [ $# -gt 0 ]; do [ $1 = --runs ] && runs=$2; shift; done",
        "mkdir -p $runs/nano50",
        &format!("case $runs in *1) digest={one};; *) digest={two};; esac"),
        &format!("printf '{record}' $digest $$ >$runs/nano50/run.json"),
    ];
    script(folder, "laptop-diff", &text.join("\n"));
}

#[test]
fn every_step_is_kept_whatever_becomes_of_the_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let results = folder.path().join("results");
    script(folder.path(), "gpu", "echo $LAPTOP_DIFF_TEST_DEVICE: $*; exit 3");
    script(folder.path(), "layers", "echo $*");
    script(folder.path(), "unet", "echo begun; sleep 20");
    script(folder.path(), "score", "echo $*");
    let run = |digests: [&str; 2], only: &str| {
        two_runs(folder.path(), digests);
        let run = Command::new("bash")
            .arg(Path::new(ROOT).join("tests/gpu/run.sh"))
            .arg("with")
            .args([folder.path(), &results])
            .envs([("DEVICE", "cpu"), ("LIMITS", "9 9 9 0.3 9"), ("ONLY", only)])
            .output()
            .expect("bash runs");
        let text =
            fs::read_to_string(results.join("gpu.json")).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        let found: serde_json::Value = serde_json::from_str(&text).expect("the results are JSON");
        let steps = found["steps"].as_array().expect("a list").clone();
        (run.status.success(), steps)
    };
    let (passed, steps) = run(["x", "x"], "kernels nano50 layers unets scores");
    let of = |key: &str| -> Vec<String> {
        steps.iter().map(|step| step[key].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert!(!passed);
    assert_eq!(of("name"), ["kernels", "nano50", "layers", "unets", "scores"]);
    assert_eq!(of("status"), ["failed (3)", "passed", "passed", "timed out", "passed"]);
    assert_eq!(steps[0]["output"][0], "cpu: --ignored --test-threads 1");
    assert_eq!(steps[1]["output"][0], "1 of 1 artefacts have the same digest");
    let layers = steps[2]["output"][0].as_str().expect("a line");
    assert!(layers.contains("--device cpu --dtype f32"), "{layers}");
    let table = fs::read_to_string(results.join("table.txt")).expect("a table");
    assert!(table.contains("unets") && table.lines().count() == 7, "{table}");

    let (passed, steps) = run(["x", "y"], "nano50");
    assert!(!passed && steps.len() == 1 && steps[0]["status"] == "failed (1)", "{steps:?}");
    let (passed, steps) = run(["x", "x"], "nano50 scores");
    assert!(passed && steps.len() == 2, "{steps:?}");
}
