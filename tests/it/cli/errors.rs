//! Mistakes of users, made with the real program: the exit code, the words, and a cache that stays as it was.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::{Sandbox, expect, expect_code, root};

/// Stages up to a selection, cheap enough to run.
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
    with: { model: teacher, prompts: prompts.txt, samples: 1, drawing: { steps: 1, guidance-scale: 1 } }
  - id: scores
    use: score
    with: { model: teacher, calibration: points, criteria: [magnitude], additivity-sets: 0 }
  - id: selection
    use: select
    with: { scores: scores, criterion: magnitude, ratio: 0.5 }
";

/// Runs the pipeline with `old` replaced by `new`.
fn run(sandbox: &Sandbox, old: &str, new: &str) -> Output {
    assert_eq!(PIPELINE.matches(old).count(), 1, "{old:?} is not one place of the pipeline");
    sandbox.write("prompts.txt", "a red circle\n");
    let file = sandbox.write("small.yaml", &PIPELINE.replace(old, new));
    sandbox.run(&["run", &file.to_string_lossy()])
}

/// How many units of a kind `inspect` lists.
fn inspected(granularity: &str, kind: &str) -> usize {
    let sandbox = Sandbox::new();
    let model = root().join("examples/nano-sd");
    let output = sandbox.run(&["inspect", &model.to_string_lossy(), "--granularity", granularity, "--json"]);
    expect_code(&output, 0);
    let inspection: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let units = inspection["units"].as_array().expect("a list");
    units.iter().filter(|unit| unit["kind"] == kind).count()
}

#[test]
fn inspect_lists_the_units_of_the_granularity() {
    let transformers = inspected("resnet,block", "transformer");
    assert!(transformers > 0);
    for (granularity, kind, count) in [
        ("resnet,block", "attn1", 0),
        ("resnet,attn1", "attn1", transformers),
        ("resnet,attn1", "transformer", 0),
        ("attn1,attn2,ff", "transformer", transformers),
        ("attn1,attn2,ff", "resnet", 0),
    ] {
        assert_eq!(inspected(granularity, kind), count, "{kind} of {granularity}");
    }
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["inspect", "model", "--granularity", "block,attn1"]);
    expect(&output, 2, &["`block` together with `attn1`"]);
}

/// How many stages the cache holds.
fn entries(sandbox: &Sandbox) -> usize {
    fs::read_dir(sandbox.path("cache/v1/entries")).map_or(0, |entries| entries.count())
}

#[test]
fn a_wrong_pipeline_is_underlined_and_leaves_no_cache() {
    let missing = "prompts.txt, samples";
    for (old, new, code, words) in [
        ("seed: 1", "seed: [1", 3, &["pipeline::syntax", "small.yaml:4:", "not YAML"][..]),
        ("seed: 1", "sede: 1", 3, &["pipeline::unknown_key", "small.yaml:3:1", "did you mean `seed`"]),
        (
            "ratio: 0.5",
            "rato: 0.5",
            3,
            &["pipeline::unknown_key", "small.yaml:16:51", "did you mean `ratio`", "`solver`"],
        ),
        (
            "ratio: 0.5",
            "ratio: 0.5, ratio: 0.4",
            3,
            &["pipeline::duplicate_key", "small.yaml:16:63", "`ratio`"],
        ),
        ("ratio: 0.5", "ratio: 1.5", 3, &["pipeline::bad_value", "small.yaml:16:58", "above 0 and below 1"]),
        ("ratio: 0.5", "ratio: half", 3, &["pipeline::wrong_type", "small.yaml:16:58", "a number"]),
        (
            "steps: 1",
            "steps: 0",
            3,
            &["pipeline::bad_value", "small.yaml:10:81", "`drawing.steps`", "found `0`"],
        ),
        ("ratio: 0.5", "ratio: 0.5, solver: knapsak", 3, &["pipeline::bad_value", "knapsack"]),
        (
            "criteria: [magnitude]",
            "granularity: [block, attn1]",
            3,
            &["pipeline::bad_value", "small.yaml:13:", "all of `attn1`, `attn2` and `ff`, or none"],
        ),
        (
            "criteria: [magnitude]",
            "granularity: [resnets]",
            3,
            &["pipeline::unknown_value", "small.yaml:13:64", "did you mean `resnet`", "`attn1`"],
        ),
        (
            "ratio: 0.5",
            "budgets: { latency: 0.3 }",
            3,
            &["pipeline::bad_value", "a `latency` budget needs a `profile`"],
        ),
        ("ratio: 0.5", "budgets: { memory: much }", 3, &["`much` is not an amount of memory", "8 GB"]),
        (
            "ratio: 0.5",
            "objective: gramm, ratio: 0.5",
            3,
            &["pipeline::bad_value", "`gramm`", "did you mean `gram`"],
        ),
        ("ratio: 0.5", "budgets: {}", 3, &["pipeline::bad_value", "give `ratio`, `budgets`"]),
        (
            "scores: scores",
            "scores: score",
            3,
            &["pipeline::unknown_id", "small.yaml:16:21", "did you mean `scores`"],
        ),
        (
            "scores: scores",
            "scores: points",
            3,
            &["pipeline::wrong_kind", "small.yaml:16:21", "made by `scores`"],
        ),
        (
            "use: select",
            "use: selekt",
            3,
            &["pipeline::unknown_stage", "small.yaml:15:10", "did you mean `select`"],
        ),
        ("id: scores", "id: points", 3, &["pipeline::duplicate_id", "small.yaml:11:9", "line 8"]),
        ("format: 1", "format: 9", 3, &["pipeline::format", "reads format 1"]),
        ("name: small", "name: a/b", 3, &["pipeline::name", "small.yaml:2:7"]),
        (
            missing,
            "absent.txt, samples",
            4,
            &["pipeline::missing_file", "small.yaml:10:38", "`prompts` of `points`"],
        ),
    ] {
        let sandbox = Sandbox::new();
        expect(&run(&sandbox, old, new), code, words);
        assert!(!sandbox.path("cache").exists(), "{new:?} made a cache");
        assert!(!sandbox.path("runs").exists(), "{new:?} made a run folder");
    }
}

#[test]
fn a_bad_number_inside_a_block_is_underlined() {
    let select = "with: { scores: scores, criterion: magnitude, ratio: 0.5 }";
    let distill = "ratio: 0.5 }\n  - id: retrained\n    use: distill\n    with:\n      \
                   teacher: teacher\n      student: teacher\n      data: points\n      ";
    for (old, new, place) in [
        ("ratio: 0.5", "budgets: { macs: 1.5 }".to_owned(), "small.yaml:16:68"),
        (
            select,
            "with:\n      scores: scores\n      criterion: magnitude\n      budgets:\n        macs: 1.5"
                .to_owned(),
            "small.yaml:20:15",
        ),
        (
            "ratio: 0.5",
            "ratio: 0.5, refine: { model: teacher, calibration: points, batch: 0 }".to_owned(),
            "small.yaml:16:117",
        ),
        (
            "criteria: [magnitude]",
            "criteria: [magnitude], delta-clip: { scorer: x, prompts: y, pictures: 0 }".to_owned(),
            "small.yaml:13:120",
        ),
        ("ratio: 0.5 }\n", format!("{distill}training: {{ steps: 0 }}\n"), "small.yaml:23:26"),
        ("ratio: 0.5 }\n", format!("{distill}training:\n        batch-size: 0\n"), "small.yaml:24:21"),
    ] {
        let sandbox = Sandbox::new();
        expect(&run(&sandbox, old, &new), 3, &["pipeline::bad_value", place]);
    }
}

#[test]
fn a_renamed_key_is_refused_with_its_new_name() {
    let calibrate = "samples: 1, drawing:";
    let old = "samples: 1, steps: 1, drawing:";
    let words = [
        "pipeline::renamed_key",
        "`steps` in stage `points`",
        "`drawing.steps`",
        "`drawing: { steps: ... }`",
    ];
    let sandbox = Sandbox::new();
    expect(&run(&sandbox, calibrate, old), 3, &words);

    let file = sandbox.write("good.yaml", PIPELINE);
    let output = sandbox.run(&["plan", &file.to_string_lossy(), "--set", "points.batch=4"]);
    expect(&output, 3, &["pipeline::renamed_key", "`drawing.batch`", "after --set points.batch=4"]);
}

#[test]
fn a_cycle_names_its_path() {
    let sandbox = Sandbox::new();
    let file = sandbox.write(
        "cycle.yaml",
        "format: 1\nname: cycle\nstages:\n\
         - { id: a, use: prune, with: { model: b, selection: p } }\n\
         - { id: b, use: prune, with: { model: a, selection: p } }\n\
         - { id: s, use: score, with: { model: a, calibration: c } }\n\
         - { id: c, use: calibrate, with: { model: a, prompts: x } }\n\
         - { id: p, use: select, with: { scores: s, ratio: 0.5 } }\n",
    );
    for command in ["run", "plan", "graph"] {
        let output = sandbox.run(&[command, &file.to_string_lossy()]);
        expect(&output, 3, &["pipeline::cycle", "`a` reads `b` reads `a`", "cycle.yaml:5:"]);
    }
    assert!(!sandbox.path("cache").exists());
}

#[test]
fn a_file_that_is_not_there_is_refused() {
    let sandbox = Sandbox::new();
    expect(&sandbox.run(&["run", "absent.yaml"]), 3, &["pipeline::unreadable", "absent.yaml"]);
}

#[test]
fn overrides_and_flags_are_checked() {
    let sandbox = Sandbox::new();
    sandbox.write("prompts.txt", "a red circle\n");
    let file = sandbox.write("small.yaml", PIPELINE);
    let file = file.to_string_lossy();
    let run = |arguments: &[&str]| sandbox.run(&[&["run", &file], arguments].concat());
    expect(&run(&["--set", "selektion.ratio=0.3"]), 2, &["pipeline::set", "did you mean `selection`"]);
    expect(&run(&["--set", "selection.rato=0.3"]), 3, &["pipeline::unknown_key", "did you mean `ratio`"]);
    expect(
        &run(&["--set", "selection.ratio=3"]),
        3,
        &["pipeline::bad_value", "after --set selection.ratio=3"],
    );
    expect(&run(&["--until", "selektion"]), 2, &["run::unknown_stage", "selektion"]);
    expect(&run(&["--device", "tpu"]), 2, &["tpu", "cuda:N"]);
    expect(&run(&["--no-such-flag"]), 2, &["--no-such-flag"]);
    assert!(!sandbox.path("cache").exists());
}

#[test]
fn wrong_settings_name_their_layer() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("small.yaml", PIPELINE);
    sandbox.write("prompts.txt", "a red circle\n");
    sandbox.write("laptop-diff.yaml", "threads: 2\ncahce: elsewhere\n");
    let output = sandbox.run(&["plan", &file.to_string_lossy()]);
    expect(&output, 3, &["settings::unknown_key", "laptop-diff.yaml:2:1", "did you mean `cache`"]);
}

/// A U-Net folder, a copy of the small model's, after `damage`.
fn damaged_model(sandbox: &Sandbox, damage: impl FnOnce(&Path)) {
    let folder = sandbox.path("model");
    fs::create_dir_all(&folder).expect("a writable sandbox");
    for name in ["config.json", WEIGHTS] {
        fs::copy(root().join("examples/nano-sd/unet").join(name), folder.join(name))
            .expect("the small model");
    }
    damage(&folder);
}

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// Changes the bytes of a file.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file to change");
    change(&mut bytes);
    fs::write(path, bytes).expect("a writable file");
}

#[track_caller]
fn expect_bad_model(damage: impl FnOnce(&Path), words: &[&str]) {
    let sandbox = Sandbox::new();
    damaged_model(&sandbox, damage);
    expect(&run(&sandbox, "'{nano}'", "model"), 4, words);
    assert_eq!(entries(&sandbox), 0, "a damaged model was cached");
}

#[test]
fn damaged_weights_are_refused() {
    expect_bad_model(
        |model| change(&model.join(WEIGHTS), |bytes| bytes.truncate(bytes.len() / 2)),
        &[WEIGHTS, "truncated"],
    );
    expect_bad_model(
        |model| {
            change(&model.join(WEIGHTS), |bytes| bytes[..8].copy_from_slice(&(1_u64 << 42).to_le_bytes()))
        },
        &[WEIGHTS, "header"],
    );
    // f16: exponent all ones, fraction not zero.
    expect_bad_model(
        |model| {
            change(&model.join(WEIGHTS), |bytes| {
                let last = bytes.len() - 2;
                bytes[last..].copy_from_slice(&0x7e00_u16.to_le_bytes());
            })
        },
        &["not finite"],
    );
}

#[test]
fn a_config_that_does_not_fit_the_weights_names_the_tensor_and_both_shapes() {
    let config = |model: &Path| {
        let path = model.join("config.json");
        let text = fs::read_to_string(&path).expect("a configuration");
        let changed = text.replace("\"cross_attention_dim\": ", "\"cross_attention_dim\": 1");
        assert_ne!(changed, text);
        fs::write(path, changed).expect("a writable file");
    };
    expect_bad_model(config, &["attn2.to_k.weight", "["]);
}

#[test]
fn a_shard_index_stays_in_its_folder() {
    let index = |model: &Path| {
        fs::rename(model.join(WEIGHTS), model.join("../outside.safetensors")).expect("the sandbox is ours");
        let index = r#"{ "metadata": {}, "weight_map": { "conv_in.weight": "../outside.safetensors" } }"#;
        fs::write(model.join(format!("{WEIGHTS}.index.json")), index).expect("a writable folder");
    };
    expect_bad_model(index, &["../outside.safetensors", "outside"]);
}

#[test]
fn empty_prompts_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("empty.txt", "\n  \n");
    expect(&run(&sandbox, "prompts: prompts.txt", "prompts: empty.txt"), 4, &["empty.txt", "prompt"]);
    assert_eq!(entries(&sandbox), 1, "only the teacher is cached");
}

#[test]
fn an_unreachable_ratio_says_the_largest_reachable() {
    let sandbox = Sandbox::new();
    expect(&run(&sandbox, "ratio: 0.5", "ratio: 0.999"), 3, &["select::ratio_unreachable", "up to 0."]);
    assert_eq!(entries(&sandbox), 3, "the selection is not cached");
}

#[test]
fn a_newer_cache_is_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.write("cache/version", "99\n");
    expect(&run(&sandbox, "seed: 1", "seed: 2"), 4, &["cache::newer_format", "99"]);
    assert_eq!(fs::read_dir(sandbox.path("cache")).expect("the cache").count(), 1);
}

#[test]
#[cfg(unix)]
fn a_full_disk_is_told_and_the_run_goes_on_when_there_is_space() {
    let sandbox = Sandbox::new();
    sandbox.write("prompts.txt", "a red circle\n");
    let file = sandbox.write("small.yaml", PIPELINE);
    let file = file.to_string_lossy();
    // A limit on file sizes fails the same writes with the same care; a disk cannot be filled in a test.
    let mut limited = std::process::Command::new("sh");
    let program = sandbox.command(&["run", &file]);
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""]).arg(program.get_program());
    limited.args(program.get_args()).current_dir(sandbox.path(""));
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    expect(
        &limited.output().expect("a shell"),
        4,
        &[
            "file::access",
            "/cache/v1/work/",
            "text_encoder/model.safetensors: File too large",
            "free space on the disk",
        ],
    );
    expect_code(&sandbox.run(&["run", &file]), 0);
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["list"]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
