//! The whole output of the real program, compared with the files in `accepted/`. A change of wording shows as a diff:
//! `INSTA_UPDATE=always cargo test --release --test it -- snapshots` accepts it, then read `git diff` before you commit.

mod help;
mod lists;
mod mistakes;
mod plan;
mod report;

use std::process::Output;

use crate::common::{Sandbox, root};

/// Stages up to an evaluation that takes a second or two; `prompts.txt` has two prompts.
const PIPELINE: &str = "\
format: 1
name: small
seed: 1
stages:
  - id: teacher
    use: load
    with: { model: '{nano}' }
  - id: points
    use: calibrate
    with: { model: teacher, prompts: prompts.txt, samples: 2, drawing: { steps: 1, guidance-scale: 1 } }
  - id: scores
    use: score
    with: { model: teacher, calibration: points, criteria: [magnitude, random], additivity-sets: 0 }
  - id: selection
    use: select
    with: { scores: scores, criterion: magnitude, ratio: 0.5 }
  - id: student
    use: prune
    with: { model: teacher, selection: selection }
  - id: result
    use: evaluate
    with:
      models: { teacher: teacher, pruned: student }
      metrics: [output-loss, clip-score, parameters]
      prompts: prompts.txt
      points: points
      selection: selection
      scorer: '{nano}/scorer'
      drawing: { steps: 1, guidance-scale: 1 }
";

/// A sandbox with [`PIPELINE`] in `small.yaml` after `old` was replaced by `new`.
fn sandbox(old: &str, new: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("prompts.txt", "a red circle\na blue star\n");
    assert!(PIPELINE.contains(old), "{old:?} is not in the pipeline");
    // The folder of the model has another length on every machine, which would move columns and line breaks.
    let model = sandbox.path("model");
    std::os::unix::fs::symlink(root().join("examples/nano-sd"), model).expect("a link in the sandbox");
    sandbox.write("small.yaml", &PIPELINE.replacen(old, new, 1).replace("{nano}", "model"));
    sandbox
}

/// Runs the program on a terminal of 100 columns without colours.
fn run(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    let mut command = sandbox.command(arguments);
    command.envs([("COLUMNS", "100"), ("NO_COLOR", "1"), ("LC_ALL", "C.UTF-8"), ("TERM", "dumb")]);
    for name in ["CLICOLOR_FORCE", "FORCE_COLOR", "NO_GRAPHICS", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    command.output().expect("the program starts")
}

/// Runs a command and gives what a user sees: the line that was typed, the exit code if it is not 0, both streams.
fn transcript(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = run(sandbox, arguments);
    let mut text = format!("$ laptop-diff {}\n", arguments.join(" "));
    if let Some(code) = output.status.code().filter(|&code| code != 0) {
        text += &format!("exit code {code}\n");
    }
    text += &String::from_utf8_lossy(&output.stdout);
    text += &String::from_utf8_lossy(&output.stderr);
    let folder = sandbox.path("");
    text.replace(folder.to_string_lossy().trim_end_matches('/'), "[sandbox]")
}

/// Compares a text with `accepted/NAME.snap`; what differs from run to run is replaced by its name in brackets.
#[track_caller]
fn check(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("accepted");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.add_filter(r"laptop-diff \d+\.\d+\.\d+", "laptop-diff [version]");
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "[time]");
    settings.add_filter(r"\b\d+(\.\d+)? (ms|s|min|h)\b( \d+ (s|min)\b)?", "[duration]");
    // Whole digests and their first twelve digits.
    settings.add_filter(r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", "[key]");
    settings.add_filter(r"\b([a-z]+)@\d+", "$1@[version]");
    let text = text.replace(&*root().to_string_lossy(), "[repository]");
    settings.bind(|| insta::assert_snapshot!(name, text));
}
