//! What can be known before drawing is checked before any stage runs, and by `plan`.

use std::fs;

use crate::common::{Sandbox, expect_code, root};

const PIPELINE: &str = "\
format: 1
name: checks
stages:
  - { id: teacher, use: load, with: { model: '{nano}' } }
  - id: points
    use: calibrate
    with: { model: teacher, prompts: prompts.txt, samples: 2, drawing: { steps: 2 } }
  - id: scores
    use: score
    with: { model: teacher, calibration: points, criteria: [delta-clip], delta-clip: { scorer: scorer, prompts: prompts.txt, pictures: 1 } }
  - id: result
    use: evaluate
    with:
      models: { teacher: teacher }
      metrics: [clip-score, attribute-accuracy]
      prompts: prompts.txt
      pictures: 2
      scorer: scorer
      attributes: { shape: [circle, square] }
";

/// A pipeline that can run, with a scorer of its own.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("checks.yaml", PIPELINE);
    sandbox.write("prompts.txt", "a red circle\na blue square\na star\n");
    fs::create_dir(sandbox.path("scorer")).expect("writable");
    for entry in fs::read_dir(root().join("examples/nano-sd/scorer")).expect("readable") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, sandbox.path("scorer").join(path.file_name().expect("a name"))).expect("readable");
    }
    sandbox
}

/// Fails unless `plan` and `run` end with `code` and say all of `words`, before anything is made.
#[track_caller]
fn expect(sandbox: &Sandbox, arguments: &[&str], code: i32, words: &[&str]) {
    for command in ["plan", "run"] {
        let output = sandbox.run(&[&[command, "checks.yaml"], arguments].concat());
        expect_code(&output, code);
        let text = String::from_utf8_lossy(&output.stderr);
        let text: String = text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(text.contains(word), "{command}: {word:?} is not in: {text}");
        }
        assert!(!text.contains("backtrace"), "{text}");
    }
    assert!(!sandbox.path("cache/v1/entries").exists(), "a stage ran");
}

fn replace(sandbox: &Sandbox, name: &str, old: &str, new: &str) {
    let path = sandbox.path(name);
    let text = fs::read_to_string(&path).expect("text");
    assert!(text.contains(old), "{name}: {text}");
    fs::write(&path, text.replace(old, new)).expect("writable");
}

#[test]
fn a_pipeline_that_can_run_is_planned() {
    expect_code(&sandbox().run(&["plan", "checks.yaml"]), 0);
}

#[test]
fn a_prompt_that_names_no_attribute_is_found_if_it_is_drawn() {
    let sandbox = sandbox();
    let words = ["the prompt `a star` names none of the attributes shape"];
    expect(&sandbox, &["--set", "result.pictures=3"], 4, &words);
}

#[test]
fn what_a_metric_needs_is_given() {
    let sandbox = sandbox();
    replace(&sandbox, "checks.yaml", "[clip-score, attribute-accuracy]", "[output-loss]");
    expect(&sandbox, &[], 3, &["`output-loss` needs `points`, which is not given"]);
    replace(&sandbox, "checks.yaml", "[output-loss]", "[clip-score]");
    replace(&sandbox, "checks.yaml", "      scorer: scorer\n", "");
    expect(&sandbox, &[], 3, &["`clip-score` needs `scorer`", "add `scorer:`"]);
}

#[test]
fn a_model_needs_a_name_for_its_folder() {
    let sandbox = sandbox();
    replace(
        &sandbox,
        "checks.yaml",
        "models: { teacher: teacher }",
        "models: { teacher: teacher, a/b: teacher }",
    );
    expect(&sandbox, &[], 3, &["the model name `a/b` cannot name a folder"]);
}

#[test]
fn a_scorer_is_checked() {
    for (name, old, new, words) in [
        (
            "tokenizer_config.json",
            "\"model_max_length\": 77",
            "\"model_max_length\": 154",
            "`model_max_length` is 154, but the text encoder reads at most 77 tokens",
        ),
        (
            "preprocessor_config.json",
            "\"height\": 64,\n    \"width\": 64",
            "\"height\": 32,\n    \"width\": 32",
            "pictures are cropped to {\"height\":32,\"width\":32}, but the image tower takes 64 pixels a side",
        ),
        (
            "preprocessor_config.json",
            "\"resample\": 3",
            "\"resample\": 2",
            "`resample` is 2; it must be 3, bicubic",
        ),
        (
            "preprocessor_config.json",
            "\"do_center_crop\": true",
            "\"do_center_crop\": false",
            "`do_center_crop` is false",
        ),
        ("config.json", "\"projection_dim\": 64", "\"projection_dim\": 63", "shape"),
    ] {
        let sandbox = sandbox();
        replace(&sandbox, &format!("scorer/{name}"), old, new);
        expect(&sandbox, &[], 4, &[words]);
    }
}
