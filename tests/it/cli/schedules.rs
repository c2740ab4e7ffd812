//! Noise schedules from `load` to the drawn picture: what is kept, refused, said and supported.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use laptop_diff::model::{Checkpoint, ModelDirectory, Prediction};
use laptop_diff::prune::{ExportError, ExportRequest, Format};
use laptop_diff::sample::NoiseSchedule;
use serde_json::{Value, json};

use crate::common::{Sandbox, expect_code, root};
use crate::small_unets;

const ZERO_SNR: &str = r#"{
  "_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity,
  "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
  "prediction_type": "v_prediction", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing"
}"#;

/// The small model with another scheduler, in the folder `model`.
fn model(sandbox: &Sandbox, scheduler: &str) -> PathBuf {
    let (from, to) = (root().join("examples/nano-sd"), sandbox.path("model"));
    for part in ["", "unet", "vae", "text_encoder", "tokenizer"] {
        fs::create_dir_all(to.join(part)).expect("a writable folder");
        for entry in fs::read_dir(from.join(part)).expect("a part of the model") {
            let path = entry.expect("a file of it").path();
            if path.is_file() {
                fs::copy(&path, to.join(part).join(path.file_name().expect("a name"))).expect("writable");
            }
        }
    }
    sandbox.write("model/scheduler/scheduler_config.json", scheduler);
    to
}

/// Loads `model`; returns what is on the terminal in one line.
fn load(sandbox: &Sandbox, code: i32) -> String {
    let stages = "stages:\n  - { id: teacher, use: load, with: { model: model } }\n";
    let file = sandbox.write("load.yaml", &format!("format: 1\nname: load\n{stages}"));
    let output = sandbox.run(&["run", &file.to_string_lossy()]);
    expect_code(&output, code);
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    text.concat().replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_scheduler_is_kept_byte_for_byte_and_what_has_no_effect_is_said() {
    let sandbox = Sandbox::new();
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity,
        "solver_order": 3, "algorithm_type": "sde-dpmsolver++", "beta_schedule": "scaled_linear"  }"#;
    model(&sandbox, text);
    let shown = load(&sandbox, 0);
    let note = "`algorithm_type: sde-dpmsolver++`, `solver_order: 3` of the model's scheduler_config.json have no effect";
    assert!(shown.contains(note), "{shown}");
    let kept = fs::read_to_string(sandbox.path("runs/load/teacher/scheduler/scheduler_config.json"));
    assert_eq!(kept.expect("the artefact has a scheduler"), text);
}

#[test]
fn other_kinds_of_noise_are_refused_at_load() {
    for (scheduler, words) in [
        (r#"{ "_class_name": "EDMEulerScheduler" }"#, "EDMEulerScheduler"),
        (r#"{ "_class_name": "FlowMatchEulerDiscreteScheduler" }"#, "flow matching"),
        (r#"{ "_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": true }"#, "use_flow_sigmas"),
        (r#"{ "beta_start": NaN }"#, "\"NaN\""),
    ] {
        let sandbox = Sandbox::new();
        model(&sandbox, scheduler);
        let shown = load(&sandbox, 4);
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
}

#[test]
fn a_schedule_that_ends_in_pure_noise_goes_through_every_stage() {
    let sandbox = Sandbox::new();
    model(&sandbox, ZERO_SNR);
    let stages = r#"format: 1
name: zero
stages:
  - { id: teacher, use: load, with: { model: model } }
  - id: points
    use: calibrate
    with: { model: teacher, prompts: "{nano}/prompts/calibration.txt", samples: 8, points-per-trajectory: 2, drawing: { steps: 2, batch: 4 } }
  - id: pictures
    use: calibrate
    with: { model: teacher, pictures: "{nano}/pictures", samples: 4 }
  - id: scores
    use: score
    with: { model: teacher, calibration: points, criteria: [output-loss, timestep-weighted, delta-task-loss, taylor], additivity-sets: 0, batch: 4 }
  - { id: selection, use: select, with: { scores: scores, ratio: 0.3 } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - id: latents
    use: encode
    with: { model: teacher, prompts: "{nano}/prompts/training.txt", samples: 4, drawing: { steps: 2, batch: 4 } }
  - id: retrained
    use: distill
    with: { teacher: teacher, student: student, data: latents, training: { steps: 2, batch-size: 2, normalisation-batches: 1 } }
  - id: from-points
    use: distill
    with: { teacher: teacher, student: student, data: points, training: { steps: 2, batch-size: 2, normalisation-batches: 1 } }
  - id: result
    use: evaluate
    with:
      models: { teacher: teacher, retrained: retrained }
      metrics: [output-loss]
      prompts: "{nano}/prompts/evaluation.txt"
      pictures: 1
      points: points
      drawing: { steps: 2, batch: 4 }
"#;
    let file = sandbox.write("zero.yaml", stages);
    expect_code(&sandbox.run(&["run", &file.to_string_lossy()]), 0);
    let at = |path: &str| sandbox.path("runs/zero").join(path);
    let points = candle_core::safetensors::load(at("points/calibration.safetensors"), &Device::Cpu)
        .expect("the points");
    let last = points["timestep"].to_vec1::<i64>().expect("whole numbers").contains(&999);
    assert!(last && points.contains_key("latents"), "the first step is from pure noise");
    let retrained = at("retrained");
    for sampler in ["ddim", "euler", "pndm"] {
        let arguments =
            ["generate", &retrained.to_string_lossy(), "--prompt", "a red circle", "--count", "1"];
        let more = ["--steps", "3", "--sampler", sampler, "--output", sampler];
        expect_code(&sandbox.run(&[&arguments[..], &more[..]].concat()), 0);
    }
}

/// Writes a model of this family with this scheduler, and exports it for ComfyUI.
fn exported(folder: &Path, family: &str, scheduler: &str) -> (ModelDirectory, PathBuf) {
    let (_, config) =
        small_unets::families().into_iter().find(|(name, _)| *name == family).expect("a family");
    let at = folder.join("model");
    small_unets::save(&config, 1, &at).expect("a model");
    fs::create_dir_all(at.join("scheduler")).expect("a folder");
    fs::write(at.join("scheduler/scheduler_config.json"), scheduler).expect("written");
    let model = ModelDirectory::open(&at).expect("a model");
    let format = Format::find("comfyui").expect("it is there");
    let path = folder.join("exported.safetensors");
    let request = ExportRequest { model: &model, format, dtype: None, allow_unrecognised: true, loras: &[] };
    request.write(&path).expect("an export");
    (model, path)
}

/// The scheduler of the directory that corresponds to a file.
fn scheduler_of(file: &Path, prediction: Option<Prediction>) -> miette::Result<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    Checkpoint::open(file)?.save(folder.path(), prediction, None)?;
    Ok(ModelDirectory::open(folder.path())?.scheduler_config()?)
}

#[test]
fn marks_of_single_files_are_written_and_read() -> miette::Result<()> {
    for family in ["sd1", "sdxl"] {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, path) = exported(folder.path(), family, ZERO_SNR);
        let found = scheduler_of(&path, None)?;
        let schedule = NoiseSchedule::from_config(&found)?;
        assert!(schedule.ends_in_pure_noise() && found["timestep_spacing"] == "trailing", "{found}");
        assert_ne!(found["_class_name"], "PNDMScheduler", "diffusers' PNDM ignores the key");
        let refused = scheduler_of(&path, Some(Prediction::Epsilon)).expect_err("`ztsnr` needs the velocity");
        assert!(refused.to_string().contains("`ztsnr`"), "{refused}");

        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).expect("a file");
        tensors.remove("ztsnr").expect("the mark");
        candle_core::safetensors::save(&tensors, &path).expect("written");
        let found = scheduler_of(&path, None)?;
        assert_eq!(
            (&found["prediction_type"], &found["timestep_spacing"]),
            (&json!("v_prediction"), &json!("leading"))
        );
        tensors.remove("v_pred").expect("the mark");
        candle_core::safetensors::save(&tensors, &path).expect("written");
        assert_eq!(scheduler_of(&path, None)?["prediction_type"], "epsilon");
        for mark in ["edm_vpred.sigma_max", "edm_mean"] {
            let one = tensors.values().next().expect("a tensor").clone();
            let mut marked = tensors.clone();
            marked.insert(mark.to_owned(), one);
            candle_core::safetensors::save(&marked, &path).expect("written");
            let refused = Checkpoint::open(&path).err().expect("an EDM model").to_string();
            assert!(refused.contains(mark) && refused.contains("EDM"), "{refused}");
        }
    }
    Ok(())
}

/// A U-Net with the widths by which loaders know SD 1.x, and little else.
#[test]
fn what_a_single_file_cannot_say_is_refused() -> miette::Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().join("model");
    let config = json!({
        "sample_size": 64, "block_out_channels": [320], "layers_per_block": 1, "cross_attention_dim": 768,
        "attention_head_dim": 8, "down_block_types": ["CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D"],
    });
    small_unets::save(&config, 1, &at)?;
    fs::create_dir_all(at.join("scheduler")).expect("a folder");
    let path = folder.path().join("exported.safetensors");
    let write = |scheduler: &Value, vae: Option<f64>, anyway: bool| {
        fs::write(at.join("scheduler/scheduler_config.json"), scheduler.to_string()).expect("written");
        if let Some(scaling_factor) = vae {
            fs::create_dir_all(at.join("vae")).expect("a folder");
            let text = json!({ "scaling_factor": scaling_factor }).to_string();
            fs::write(at.join("vae/config.json"), text).expect("written");
        }
        let model = ModelDirectory::open(&at).expect("a model");
        let format = Format::find("comfyui").expect("it is there");
        ExportRequest { model: &model, format, dtype: None, allow_unrecognised: anyway, loras: &[] }
            .write(&path)
    };
    let usual = json!({ "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear" });
    let with = |key: &str, value: Value| {
        let mut keys = usual.clone();
        keys[key] = value;
        keys
    };
    assert_eq!(write(&usual, None, false)?.unrecognised, None);
    let velocity = with("prediction_type", json!("v_prediction"));
    let reason = "ComfyUI would assume that this model predicts noise instead of the velocity";
    let kept = write(&velocity, None, true)?.unrecognised;
    assert!(kept.is_some_and(|kept| kept.contains(reason)), "the export says why");
    for (scheduler, vae, words) in [
        (&velocity, None, reason),
        (&with("beta_end", json!(0.02)), None, "this model has others"),
        (&usual, Some(0.5), "`scaling_factor` of this autoencoder is 0.5"),
    ] {
        let refused = write(scheduler, vae, false).expect_err("ComfyUI would sample wrongly");
        assert!(matches!(refused, ExportError::Unrecognised { .. }), "{refused}");
        assert!(refused.to_string().contains(words), "{words:?} is not in {refused}");
    }
    Ok(())
}

#[test]
fn a_model_with_more_input_channels_is_compressed_from_a_file_of_points() -> miette::Result<()> {
    let sandbox = Sandbox::new();
    let (_, mut config) = small_unets::families().swap_remove(0);
    (config["in_channels"], config["out_channels"]) = (json!(9), json!(4));
    (config["sample_size"], config["block_out_channels"]) = (json!(16), json!([32, 32, 32, 32]));
    small_unets::save(&config, 1, &sandbox.path("model/unet"))?;
    sandbox.write("model/scheduler/scheduler_config.json", r#"{ "beta_schedule": "scaled_linear" }"#);
    let index =
        r#"{ "unet": ["diffusers", "UNet2DConditionModel"], "scheduler": ["diffusers", "DDIMScheduler"] }"#;
    sandbox.write("model/model_index.json", index);
    let unet = ModelDirectory::open(&sandbox.path("model"))?.unet_config()?;
    let points = small_unets::points(&unet, 3, 1).expect("points");
    points.save(&sandbox.path("points.safetensors"))?;
    let narrow = laptop_diff::data::Calibration { sample: points.noise.clone(), ..points };
    narrow.save(&sandbox.path("narrow.safetensors"))?;
    let text = "format: 1\nname: wide\nstages:\n  - { id: teacher, use: load, with: { model: model } }\n";
    let stages = r#"  - { id: points, use: calibrate, with: { file: points.safetensors } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, criteria: [output-loss, taylor], additivity-sets: 2 } }
  - { id: selection, use: select, with: { scores: scores, ratio: 0.1, refine: { calibration: points, model: teacher } } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - { id: exported, use: export, with: { model: student, to: diffusers } }
"#;
    let run = |stages: &str, code: i32| {
        let file = sandbox.write("wide.yaml", &format!("{text}{stages}"));
        let output = sandbox.run(&["run", &file.to_string_lossy()]);
        expect_code(&output, code);
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        text.concat().replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let shown = run(stages, 0);
    assert!(shown.contains("9 input channels") && shown.contains("`file:`"), "{shown}");
    let shown = run(&stages.replace("points.safetensors", "narrow.safetensors"), 4);
    assert!(shown.contains("`sample` has shape [3, 4, 16, 16], but this U-Net needs 9 channels"), "{shown}");
    // What draws or trains is refused before anything runs, also where its model is made from the loaded one.
    let (points, _) = stages.split_once('\n').expect("the first stage");
    for (last, with) in [
        ("calibrate", "{ model: teacher, prompts: '{nano}/prompts/world.txt' }"),
        ("encode", "{ model: student, prompts: '{nano}/prompts/world.txt' }"),
        ("distill", "{ teacher: teacher, student: student, data: points }"),
        (
            "evaluate",
            "{ models: { teacher: teacher, pruned: student }, metrics: [output-loss], points: points, \
             prompts: '{nano}/prompts/world.txt' }",
        ),
    ] {
        std::fs::remove_dir_all(sandbox.path("runs")).expect("of the run before");
        run(points, 0);
        let before = std::fs::read_to_string(sandbox.path("runs/wide/run.json")).expect("its record");
        let shown = run(&format!("{stages}  - {{ id: last, use: {last}, with: {with} }}\n"), 4);
        assert!(
            shown.contains("stage `last` cannot use") && shown.contains("9 input channels, but only 4"),
            "{shown}"
        );
        assert!(shown.contains("`file:`"), "{shown}");
        let after = std::fs::read_to_string(sandbox.path("runs/wide/run.json")).expect("its record");
        assert_eq!(before, after, "nothing ran");
    }
    Ok(())
}
