//! Files, variables and terminals that are not as expected: each command says so and ends with its exit code. Nothing that
//! stands in a file reaches a terminal as a command.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Sandbox, expect, expect_code, root};
use serde_json::Value;

/// Stages up to a selection, cheap enough to run.
const PIPELINE: &str = "\
format: 1
name: small
seed: 1
stages:
  - { id: teacher, use: load, with: { model: '{nano}' } }
  - { id: points, use: calibrate, with: { model: teacher, prompts: prompts.txt, samples: 1, drawing: { steps: 1, guidance-scale: 1 } } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, criteria: [magnitude], additivity-sets: 0 } }
  - { id: selection, use: select, with: { scores: scores, criterion: magnitude, ratio: 0.5 } }
";

/// A sandbox with the pipeline after `old` was replaced by `new`.
fn sandbox(old: &str, new: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    assert!(PIPELINE.contains(old), "{old:?} is not in the pipeline");
    sandbox.write("prompts.txt", "a red circle\n");
    sandbox.write("small.yaml", &PIPELINE.replacen(old, new, 1));
    sandbox
}

/// Writes a pipeline file of these bytes and plans it.
fn plan_bytes(bytes: &[u8]) -> Output {
    let sandbox = sandbox("", "");
    fs::write(sandbox.path("small.yaml"), bytes).expect("a writable file");
    sandbox.run(&["plan", "small.yaml"])
}

#[test]
fn a_file_that_is_not_utf8_is_refused_at_its_first_bad_byte() {
    let latin = [b"format: 1\nname: small # caf\xe9\n", PIPELINE.as_bytes()].concat();
    let words =
        ["yaml::not_utf8", "small.yaml:2:18", "0xe9 in line 2, column 18", "`é`", "save the file as UTF-8"];
    expect(&plan_bytes(&latin), 3, &words);
    let utf16: Vec<u8> = PIPELINE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    expect(&plan_bytes(&[b"\xff\xfe", &utf16[..]].concat()), 3, &["yaml::not_text", "small.yaml", "UTF-16"]);
    for blank in ["", "\u{feff}", "# nothing\n\n", "---\n"] {
        let words = ["yaml::empty", "small.yaml holds no pipeline", "`format: 1`"];
        expect(&plan_bytes(blank.as_bytes()), 3, &words);
    }
    let sandbox = sandbox("format", "\u{feff}format");
    expect_code(&sandbox.run(&["plan", "small.yaml"]), 0);
    sandbox.write("laptop-diff.yaml", "\u{feff}threads: 1\n");
    expect_code(&sandbox.run(&["plan", "small.yaml"]), 0);
    fs::write(sandbox.path("laptop-diff.yaml"), b"# caf\xe9\n").expect("a writable file");
    expect(&sandbox.run(&["plan", "small.yaml"]), 3, &["yaml::not_utf8", "laptop-diff.yaml:1:6"]);
}

#[test]
fn a_file_beyond_the_limits_is_refused_in_a_few_lines() {
    let short = |output: &Output| {
        assert!(output.stderr.len() < 8192, "{}", String::from_utf8_lossy(&output.stderr));
    };
    for deep in ["[", "{a: ", "- ", "? "] {
        let output =
            plan_bytes(format!("format: 1\nname: x\nstages:\n  {}", deep.repeat(100_000)).as_bytes());
        expect_code(&output, 3);
        short(&output);
        if deep != "? " {
            expect(&output, 3, &["yaml::too_deep", "more than 128 deep", "small.yaml:4:"]);
        }
    }
    let large = format!("{PIPELINE}# {}\n", "x".repeat(3_000_000));
    expect(&plan_bytes(large.as_bytes()), 3, &["yaml::too_large", "small.yaml", "1.0 MB"]);
    let long = "x".repeat(900_000);
    for (old, new, words) in [
        (
            "ratio: 0.5",
            format!("ratio: {long}"),
            &["pipeline::wrong_type", "`ratio` of stage `selection`"][..],
        ),
        ("ratio: 0.5", format!("{}: 0.5", &long[..1000]), &["pipeline::unknown_key", "(1000 characters)"]),
        ("name: small", format!("name: {long}"), &["pipeline::name", "small.yaml:2:7"]),
        ("use: select", format!("use: {long}"), &["pipeline::unknown_stage"]),
        ("id: scores", format!("id: {long}"), &["pipeline::name"]),
        ("scores: scores", format!("scores: {long}"), &["pipeline::unknown_id", "`scores` of `selection`"]),
        ("ratio: 0.5", format!("ratio: 0.5, solver: {long}"), &["pipeline::bad_value", "knapsack"]),
        ("ratio: 0.5", format!("budgets: {{ memory: {long} }}"), &["pipeline::bad_value", "8 GB"]),
        ("prompts.txt", long.clone(), &["pipeline::missing_file"]),
        ("seed: 1", format!("seed: 1\nsweep: {{ selection.{long}: [1] }}"), &["pipeline::"]),
    ] {
        let output = plan_bytes(PIPELINE.replacen(old, &new, 1).as_bytes());
        short(&output);
        assert!(output.status.code().is_some_and(|code| code == 3 || code == 4), "{output:?}");
        expect(&output, output.status.code().unwrap_or_default(), words);
    }
}

#[test]
fn a_sweep_is_planned_in_time_that_grows_with_its_values() {
    // Reading the whole file again for each of its values would take minutes.
    let values = |count: usize| (0..count).map(|n| format!("{}", 0.1 + n as f64 / 1e6)).collect::<Vec<_>>();
    let sweep = format!("sweep: {{ selection.ratio: [{}] }}\n", values(10_000).join(", "));
    let sandbox = sandbox("", "");
    sandbox.write("small.yaml", &format!("{PIPELINE}{sweep}"));
    let output = sandbox.run(&["graph", "small.yaml"]);
    expect_code(&output, 0);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 3 + 10_000);

    let axis = values(1000).join(", ");
    let seeds = (0..1000).map(|seed| seed.to_string()).collect::<Vec<_>>().join(", ");
    sandbox
        .write("small.yaml", &format!("{PIPELINE}sweep:\n  selection.ratio: [{axis}]\n  seed: [{seeds}]\n"));
    let words = ["pipeline::sweep_too_large", "small.yaml:9:1", "1000000 combinations", "at most 10000"];
    expect(&sandbox.run(&["plan", "small.yaml"]), 3, &words);
}

#[test]
fn null_is_no_text_and_nothing_is_empty_text() {
    for (old, new, place) in [
        ("model: teacher, calibration", "model: ~, calibration", "small.yaml:7:"),
        ("criteria: [magnitude]", "criteria: [null]", "small.yaml:7:"),
        ("guidance-scale: 1", "guidance-scale: 1, negative-prompt: null", "small.yaml:6:"),
        ("guidance-scale: 1", "guidance-scale: 1, negative-prompt: ", "small.yaml:6:"),
        ("name: small", "name: ~", "small.yaml:2:7"),
        ("id: selection", "id: null", "small.yaml:8:"),
    ] {
        let words = ["pipeline::null", place, "is null", "write '' for empty text"];
        expect(&sandbox(old, new).run(&["plan", "small.yaml"]), 3, &words);
    }
    for fine in ["negative-prompt: ''", "negative-prompt: 'null'", "negative-prompt: nullify", "size: ~"] {
        let sandbox = sandbox("guidance-scale: 1", &format!("guidance-scale: 1, {fine}"));
        expect_code(&sandbox.run(&["plan", "small.yaml"]), 0);
    }
    let key = |change: &str| {
        let sandbox = sandbox("", "");
        let output = sandbox.run(&["plan", "small.yaml", "--json", "--set", change]);
        (output.status.code(), output)
    };
    let (code, output) = key("points.drawing.negative-prompt=");
    assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let (_, output) = key("points.drawing.negative-prompt=~");
    expect(&output, 3, &["pipeline::null", "`drawing.negative-prompt` of stage `points`"]);
    let (_, output) = key("selection.ratio=");
    expect(&output, 3, &["pipeline::wrong_type", "`ratio` of stage `selection`", "a number above 0"]);
}

#[test]
fn a_number_of_more_than_64_bits_is_named_as_such() {
    let large = "18446744073709551616";
    let words = [large, "at most 64 bits", "`seed` of the pipeline"];
    expect(&sandbox("seed: 1", &format!("seed: {large}")).run(&["plan", "small.yaml"]), 3, &words);
    let sandbox = sandbox("", "");
    let set = sandbox.run(&["plan", "small.yaml", "--set", &format!("seed={large}")]);
    expect(&set, 2, &["pipeline::set", large, "at most 64 bits"]);
    let deep = sandbox.run(&["plan", "small.yaml", "--set", &format!("seed={}", "[".repeat(100_000))]);
    expect(&deep, 2, &["pipeline::set", "more than 128 deep"]);
    assert!(deep.stderr.len() < 4096);
}

#[test]
fn variables_and_folders_may_be_any_bytes() {
    let sandbox = sandbox("", "");
    let plan = |name: &[u8], value: &[u8]| {
        let mut command = sandbox.command(&["plan", "small.yaml"]);
        command.env(OsStr::from_bytes(name), OsStr::from_bytes(value)).output().expect("the program starts")
    };
    expect(&plan(b"FOO", b"\xe9"), 0, &[]);
    expect(&plan(b"LAPTOP_DIFF_CACHE", b"123"), 0, &[]);
    expect(&plan(b"LAPTOP_DIFF_CACHE", b""), 0, &[]);
    expect(&plan(b"LAPTOP_DIFF_CACHE", b"caf\xe9"), 0, &[]);
    let words = ["note:", "`LAPTOP_DIFF_THREDS`", "no effect", "did you mean `LAPTOP_DIFF_THREADS`"];
    expect(&plan(b"LAPTOP_DIFF_THREDS", b"2"), 0, &words);
    expect(&plan(b"LAPTOP_DIFF_\xe9", b"\xe9"), 0, &["note:", "no effect"]);
    expect(&plan(b"LAPTOP_DIFF_DEVICE", b"\xe9"), 3, &["LAPTOP_DIFF_DEVICE", "not UTF-8"]);
    expect(&plan(b"LAPTOP_DIFF_MEMORY", b"8"), 3, &["LAPTOP_DIFF_MEMORY", "`8`", "8 GB"]);

    let folder = sandbox.path("").join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&folder).expect("a file system that takes any bytes");
    for name in ["small.yaml", "prompts.txt"] {
        fs::copy(sandbox.path(name), folder.join(name)).expect("a writable folder");
    }
    let inside = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        command.env_remove("LAPTOP_DIFF_CACHE").env_remove("LAPTOP_DIFF_RUNS").current_dir(&folder);
        command.output().expect("the program starts")
    };
    expect(&inside(&["run", "small.yaml"]), 0, &["4 ran, 0 cached"]);
    let again = inside(&["run", "small.yaml", "--json"]);
    expect_code(&again, 0);
    let events: Vec<Value> = String::from_utf8_lossy(&again.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let last = &events.last().expect("a last event")["event"];
    assert_eq!(last["cached"], 4, "{last}");
    assert!(
        last["folder"]
            .as_str()
            .is_some_and(|folder| folder.starts_with("file:/") && folder.contains("caf%E9"))
    );
    expect_code(&inside(&["plan", "small.yaml"]), 0);
    expect_code(&inside(&["report", "runs/small"]), 0);
    let page = fs::read_to_string(folder.join("runs/small/report.html")).expect("a report");
    assert!(!page.contains("cannot be shown"), "the report finds the artefacts");
}

/// Runs a command whose stdout and stderr nobody reads.
fn unread(sandbox: &Sandbox, arguments: &[&str]) -> Option<i32> {
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    let mut command = sandbox.command(arguments);
    command.stdout(closed()).stderr(closed()).status().expect("the program starts").code()
}

#[test]
fn where_nobody_reads_the_exit_code_stays() {
    let sandbox = sandbox("", "");
    for (arguments, code) in [
        (&["list"][..], 0),
        (&["--help"], 0),
        (&["plan", "small.yaml"], 0),
        (&["plan", "absent.yaml"], 3),
        (&["inspect", "."], 4),
        (&["plan", "--no-such-flag"], 2),
        (&["run", "small.yaml", "--until", "teacher"], 0),
        (&["run", "small.yaml", "--until", "teacher", "--json"], 0),
    ] {
        assert_eq!(unread(&sandbox, arguments), Some(code), "{arguments:?}");
        let program = sandbox.command(&[]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" >&- 2>&-"]).arg(program.get_program()).args(arguments);
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let status = shell.current_dir(sandbox.path("")).status().expect("a shell");
        assert_eq!(status.code(), Some(code), "closed: {arguments:?}");
    }
}

/// What an attacker would write into a caption: a title, a clear screen in one character, a line turned around.
const ESCAPES: &str = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}";

#[track_caller]
fn is_safe(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let is_control = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!text.contains(is_control), "{text:?}");
}

#[test]
fn nothing_in_a_file_controls_the_terminal() {
    let sandbox = sandbox("", "");
    let long = "a red circle on a blue square ".repeat(30);
    fs::write(sandbox.path("prompts.txt"), format!("{ESCAPES}{long}\n")).expect("a writable file");
    let output = sandbox.run(&["run", "small.yaml", "--until", "points"]);
    expect(&output, 0, &["cut to", "\\u{1b}]0;owned\\u{7}\\u{9b}2J\\u{202e}"]);
    is_safe(&output.stderr);
    let arguments = ["run", "small.yaml", "--until", "points", "--force", "points", "--json"];
    let output = sandbox.run(&arguments);
    expect_code(&output, 0);
    is_safe(&output.stdout);
    let notes = String::from_utf8_lossy(&output.stdout);
    let note = notes.lines().find(|line| line.contains("cut to")).expect("a note");
    let note: Value = serde_json::from_str(note).expect("JSON");
    assert!(note["event"]["text"].as_str().is_some_and(|text| text.contains(ESCAPES)), "{note}");

    let escaped = "\"abs\\e]0;owned\\a\\x9b2Jent.txt\"";
    for (old, new) in [
        ("prompts.txt", escaped),
        ("criterion: magnitude", &format!("criterion: magnitude, solver: {escaped}")),
        ("scores: scores", &format!("scores: {escaped}")),
        ("ratio: 0.5", &format!("{escaped}: 0.5")),
        ("name: small", &format!("name: {escaped}")),
        // These the YAML reader refuses itself, and the snippet shows their line.
        ("name: small", "name: sm\u{1b}]0;owned\u{7}all"),
        ("name: small", "nome: small # \u{202e}"),
        ("seed: 1", "seed: one\u{85}"),
    ] {
        let wrong = self::sandbox(old, new);
        let output = wrong.run(&["plan", "small.yaml"]);
        assert!(output.status.code().is_some_and(|code| code == 3 || code == 4), "{new:?}: {output:?}");
        is_safe(&output.stderr);
    }
}

#[test]
fn the_first_interrupt_is_heard_while_a_model_is_hashed() {
    let sandbox = sandbox("model: '{nano}'", "model: large");
    fs::create_dir(sandbox.path("large")).expect("a writable folder");
    let file = fs::File::create(sandbox.path("large/model.safetensors")).expect("a writable folder");
    // It takes no space on the disk, and minutes to read.
    file.set_len(1 << 40).expect("a file system with sparse files");
    let mut command = sandbox.command(&["run", "small.yaml", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut events = lines.map(|line| -> Value {
        serde_json::from_str(&line.expect("the program writes text")).expect("each line is JSON")
    });
    let hashing = events.find(|line| line["event"]["type"] == "hashing").expect("hashing is told");
    assert_eq!(hashing["event"]["total"], 1_u64 << 40);
    assert!(hashing["event"]["path"].as_str().is_some_and(|path| path.ends_with("large/model.safetensors")));
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill is there").success());
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child to wait for") {
            Some(status) => break status,
            None if begun.elapsed() > Duration::from_secs(30) => {
                child.kill().expect("SIGKILL is allowed");
                panic!("the interrupt is not heard");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert_eq!(status.code(), Some(130));
}

#[test]
fn a_plan_names_the_files_that_changed() {
    let sandbox = sandbox("model: '{nano}'", "model: model");
    let copied =
        Command::new("cp").arg("-r").arg(root().join("examples/nano-sd")).arg(sandbox.path("model")).status();
    assert!(copied.expect("cp is there").success());
    expect_code(&sandbox.run(&["run", "small.yaml", "--until", "teacher"]), 0);
    for name in ["scheduler/scheduler_config.json", "unet/config.json"] {
        let path = sandbox.path("model").join(name);
        let text = fs::read_to_string(&path).expect("the small model has it");
        fs::write(&path, format!("{text}\n")).expect("a writable file");
    }
    let output = sandbox.run(&["plan", "small.yaml"]);
    expect_code(&output, 0);
    let text = String::from_utf8_lossy(&output.stdout);
    let named = "file model: scheduler/scheduler_config.json changed, unet/config.json changed\n";
    assert!(text.contains(named), "{text}");
    let output = sandbox.run(&["plan", "small.yaml", "--json"]);
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let reason = &plan[0]["reasons"][0];
    assert_eq!((&reason["reason"], &reason["count"]), (&"files".into(), &2.into()), "{reason}");
}
