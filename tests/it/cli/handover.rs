//! From a teacher to files for other programs and back, with the real binary: a layout made by hand is pruned, retrained,
//! evaluated and exported, and the single file is loaded again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::{Sandbox, expect, expect_code, root};
use crate::small_unets;
use laptop_diff::base::{copies, files};
use laptop_diff::distill::history::{HISTORY_FILE, read};
use laptop_diff::model::{Checkpoint, ModelDirectory, Part, UNetConfig};
use laptop_diff::select::Layout;
use serde_json::{Value, json};

pub(super) const STAGES: &str = "\
format: 1
name: tiny
stages:
  - { id: teacher, use: load, with: { model: model } }
  - { id: points, use: calibrate, with: { model: teacher, prompts: prompts.txt, samples: 4, drawing: { steps: 4, guidance-scale: 1 }, points-per-trajectory: 2 } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, additivity-sets: 0 } }
  - { id: selection, use: select, with: { scores: scores, layout: bk-sdm-tiny } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - { id: retrained, use: distill, with: { teacher: teacher, student: student, data: points, training: { steps: 3, batch-size: 2 } } }
  - id: result
    use: evaluate
    with: { models: { teacher: teacher, pruned: student, retrained: retrained }, metrics: [output-loss, parameters], points: points, prompts: prompts.txt, pictures: 1, drawing: { steps: 2, guidance-scale: 1 } }
  - { id: single, use: export, with: { model: retrained, to: comfyui, allow-unrecognised: true } }
  - { id: folder, use: export, with: { model: retrained, to: diffusers } }
";

/// The teacher of these tests: a small U-Net with the structure of SD 1.x beside the other parts of nano-sd.
pub(super) fn teacher(sandbox: &Sandbox) -> UNetConfig {
    let (_, mut config) = small_unets::families().swap_remove(0);
    config["sample_size"] = json!(16);
    config["cross_attention_dim"] = json!(64);
    let model = sandbox.path("model");
    small_unets::save(&config, 1, &model.join("unet")).expect("a writable folder");
    let nano = root().join("examples/nano-sd");
    for part in ["vae", "text_encoder", "tokenizer", "scheduler"] {
        copies::transfer_tree(&nano.join(part), &model.join(part), copies::copy).expect("a writable folder");
    }
    fs::copy(nano.join("model_index.json"), model.join("model_index.json")).expect("as above");
    sandbox.write("prompts.txt", "a red circle\na small blue star\n");
    UNetConfig::parse(&config.to_string()).expect("a U-Net")
}

fn run(sandbox: &Sandbox, text: &str) -> Output {
    sandbox.run(&["run", &sandbox.write("tiny.yaml", text).to_string_lossy()])
}

fn json_of(path: &Path) -> Value {
    files::read_json(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_layout_is_pruned_retrained_and_exported() {
    let sandbox = Sandbox::new();
    let teacher = teacher(&sandbox);
    expect_code(&run(&sandbox, STAGES), 0);
    let at = |name: &str| sandbox.path("runs/tiny").join(name);

    let assembly =
        Layout::find("bk-sdm-tiny").expect("a layout").assemble(&teacher).expect("it is made for SD 1.x");
    let parameters = assembly.config().inventory().parameters();
    for stage in ["student", "retrained"] {
        let config = ModelDirectory::open(&at(stage)).and_then(|model| model.unet_config()).expect("a model");
        assert_eq!(&config, assembly.config(), "{stage}");
        assert_eq!(json_of(&at(stage).join("unet/config.json"))["_class_name"], "UNet2DConditionModel");
        assert!(at(stage).join("lora-remap.json").is_file(), "{stage} has a table for LoRAs");
    }
    // The student's innermost up block corresponds to the teacher's second, and learns from it.
    let history = read(&at("retrained").join(HISTORY_FILE)).expect("a history");
    assert_eq!(history.len(), 3);
    for line in &history {
        let features = line.features.keys().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(
            features,
            ["down_blocks.0", "down_blocks.1", "down_blocks.2", "up_blocks.0", "up_blocks.1", "up_blocks.2"]
        );
        assert!(line.features["up_blocks.0"].plain > 0.0 && line.total.is_finite());
    }
    let metrics = fs::read_to_string(at("result/metrics.json")).expect("metrics");
    assert!(metrics.contains(&parameters.to_string()), "{metrics}");

    check_exports(&at, parameters);
    let report = fs::read_to_string(at("report.html")).expect("a report");
    assert!(report.contains(">Exports<") && report.contains("single/model.safetensors"));

    let digests = sandbox.digests("tiny");
    expect_code(&run(&sandbox, STAGES), 0);
    assert_eq!(sandbox.digests("tiny"), digests);
    let record = json_of(&at("run.json"));
    for stage in record["stages"].as_array().expect("stages") {
        assert_eq!(stage["state"], "cached", "{stage}");
    }

    // A set of units has a joint loss, but a layout that drops layers is more than such a set.
    let measured = STAGES.replace("points: points, prompts", "points: points, selection: selection, prompts");
    expect(
        &run(&sandbox, &measured),
        3,
        &["select::not_units", "bk-sdm-tiny", "leave `selection` out", "output-loss"],
    );

    export_by_hand(&sandbox, parameters);
    load_again(&sandbox, assembly.config());
}

/// Both exports record their format and contain the U-Net without padding.
fn check_exports(at: &dyn Fn(&str) -> PathBuf, parameters: u64) {
    for (stage, to, path) in [("single", "comfyui", "model.safetensors"), ("folder", "diffusers", "model")] {
        let export = json_of(&at(stage).join("export.json"));
        assert_eq!((&export["format"], &export["path"]), (&json!(to), &json!(path)));
        assert_eq!(
            (&export["parameters"], &export["written_parameters"]),
            (&json!(parameters), &json!(parameters))
        );
        assert_eq!(
            export["unrecognised"].is_string(),
            to == "comfyui",
            "only ComfyUI does not know 32 channels"
        );
        assert!(at(stage).join(path).exists());
    }
}

/// `laptop-diff export` reports what it wrote and what it refuses.
fn export_by_hand(sandbox: &Sandbox, parameters: u64) {
    let export = |more: &[&str]| {
        let arguments =
            ["export", "runs/tiny/retrained", "--to", "comfyui", "--output", "tiny.safetensors", "--json"];
        sandbox.run(&[arguments.as_slice(), more].concat())
    };
    expect(&export(&[]), 2, &["export::unrecognised", "32 channels", "--allow-unrecognised"]);
    assert!(!sandbox.path("tiny.safetensors").exists());
    let output = export(&["--allow-unrecognised"]);
    expect_code(&output, 0);
    let written: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert_eq!((&written["path"], &written["parameters"]), (&json!("tiny.safetensors"), &json!(parameters)));
    assert_eq!(written["parts"], json!(["text_encoder", "vae"]));
    let before = fs::read(sandbox.path("tiny.safetensors")).expect("it was written");
    expect(&export(&["--allow-unrecognised"]), 4, &["cli::exists", "--output"]);
    assert_eq!(fs::read(sandbox.path("tiny.safetensors")).expect("it is still there"), before);
}

/// `use: load` of the file gives the same U-Net.
fn load_again(sandbox: &Sandbox, written: &UNetConfig) {
    let stage = |with: &str| {
        format!("format: 1\nname: again\nstages:\n  - {{ id: model, use: load, with: {{ {with} }} }}\n")
    };
    // The original layout implies norms of 32 groups, which nano-sd's autoencoder does not have.
    let whole = stage("model: tiny.safetensors, tokenizer: '{nano}/tokenizer'");
    expect(&run(sandbox, &whole), 4, &["model::checkpoint", "tiny.safetensors", "norm_num_groups"]);
    let student = sandbox.path("runs/tiny/retrained");
    for part in ["unet", "text_encoder", "tokenizer", "scheduler"] {
        copies::transfer_tree(&student.join(part), &sandbox.path("without-vae").join(part), copies::copy)
            .expect("a writable folder");
    }
    let arguments =
        ["export", "without-vae", "--to", "comfyui", "--allow-unrecognised", "--output", "small.safetensors"];
    expect_code(&sandbox.run(&arguments), 0);
    expect_code(&run(sandbox, &whole.replace("tiny.safetensors", "small.safetensors")), 0);

    let again = ModelDirectory::open(&sandbox.path("runs/again/model")).expect("a model");
    let config = again.unet_config().expect("a U-Net");
    // What it was trained on is not in the file.
    assert_eq!(UNetConfig { sample_size: written.sample_size, ..config }, *written);
    assert!(
        again.has(Part::TextEncoder) && again.tokenizer(Part::Tokenizer).is_ok() && !again.has(Part::Vae)
    );
    let weights = |model: &ModelDirectory| model.unet_weights().expect("weights");
    let (ours, theirs) = (weights(&ModelDirectory::open(&student).expect("a model")), weights(&again));
    assert!(ours.names().eq(theirs.names()));
    for name in ours.names() {
        let bytes =
            |weights: &laptop_diff::model::Weights| weights.view(name).expect("it is there").data().to_vec();
        assert_eq!(bytes(&ours), bytes(&theirs), "{name}");
    }

    let file = sandbox.path("small.safetensors");
    let output = sandbox.run(&["inspect", &file.to_string_lossy(), "--json"]);
    expect_code(&output, 0);
    let inspection: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(inspection["parameters"], json!(written.inventory().parameters()));
    assert_eq!(Checkpoint::open(&file).expect("a checkpoint").unet_config().levels, written.levels);

    expect(&run(sandbox, &stage("model: small.safetensors, variant: fp16")), 3, &["`variant`", "folders"]);
    expect(
        &run(sandbox, &stage("model: without-vae, tokenizer: '{nano}/tokenizer'")),
        3,
        &["`tokenizer`", "single files"],
    );
}

#[test]
fn a_pickle_is_refused_with_the_way_to_convert_it() {
    let sandbox = Sandbox::new();
    let pickle = sandbox.path("model.ckpt");
    fs::write(&pickle, b"PK\x03\x04 archive/data.pkl").expect("a writable file");
    let words = ["weights::pickle", "model.ckpt", "safe_serialization=True"];
    expect(&sandbox.run(&["inspect", &pickle.to_string_lossy()]), 4, &words);
    let text = "format: 1\nname: tiny\nstages:\n  - { id: model, use: load, with: { model: model.ckpt } }\n";
    expect(&run(&sandbox, text), 4, &words);
}
