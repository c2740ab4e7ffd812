//! A part of a model that overflows ends the command with the part, the prompt and the step. Nothing of it is painted,
//! scored or kept.

use std::fs;
use std::path::Path;
use std::process::Output;

use candle_core::{DType, Device, safetensors};

use crate::common::{Sandbox, root};

/// Makes the small model in the folder `broken`, where one tensor of one file is finite but so large that every result
/// overflows in f32.
fn broken(sandbox: &Sandbox, file: &str, tensor: &str) {
    copy(&root().join("examples/nano-sd"), &sandbox.path("broken"));
    let path = sandbox.path("broken").join(file);
    let mut tensors = safetensors::load(&path, &Device::Cpu).expect("weights");
    let found = tensors.get(tensor).expect("the tensor");
    let values = found.to_dtype(DType::F64).and_then(|values| values * 1e42).expect("numbers");
    let largest = f64::from(f32::MAX);
    let values = values.clamp(-largest, largest).and_then(|values| values.to_dtype(DType::F32));
    tensors.insert(tensor.to_owned(), values.expect("numbers"));
    fs::remove_file(&path).expect("a copy");
    safetensors::save(&tensors, &path).expect("a writable folder");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(fs::copy(&path, &to).expect("readable")),
        }
    }
}

/// Runs a pipeline whose last stage is `stage`, with the broken model as `teacher`.
fn run(sandbox: &Sandbox, stage: &str) -> Output {
    let text = format!(
        "format: 1\nname: broken\nstages:\n  - {{ id: teacher, use: load, with: {{ model: broken }} }}\n{stage}"
    );
    sandbox.write("broken.yaml", &text);
    sandbox.run(&["run", "broken.yaml"])
}

/// Fails unless the command failed and said all of `words`.
#[track_caller]
fn expect(output: &Output, words: &[&str]) {
    // A message may be wrapped anywhere.
    let text = String::from_utf8_lossy(&output.stderr);
    let text: String = text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    assert!(!output.status.success(), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

const TRAJECTORIES: &str = "  \
  - { id: last, use: calibrate, with: { model: teacher, prompts: '{nano}/prompts/evaluation.txt', samples: 2, drawing: { steps: 2 } } }\n";
const DRAWN: &str = "  \
  - { id: last, use: encode, with: { model: teacher, prompts: '{nano}/prompts/evaluation.txt', samples: 2, drawing: { steps: 2 } } }\n";
const NOISED: &str = "  \
  - { id: last, use: calibrate, with: { model: teacher, pictures: '{nano}/pictures', samples: 2 } }\n";
const ENCODED: &str = "  \
  - { id: last, use: encode, with: { model: teacher, pictures: '{nano}/pictures', samples: 2 } }\n";
const EVALUATED: &str = "  \
  - { id: last, use: evaluate, with: { models: { teacher: teacher }, metrics: [clip-score], scorer: '{nano}/scorer', prompts: '{nano}/prompts/evaluation.txt', pictures: 2, drawing: { steps: 2 } } }\n";
const SCORED: &str = "  \
  - { id: points, use: calibrate, with: { model: teacher, prompts: '{nano}/prompts/evaluation.txt', samples: 2, drawing: { steps: 2 } } }
  - id: last
    use: score
    with: { model: teacher, calibration: points, criteria: [delta-clip], additivity-sets: 0, delta-clip: { scorer: '{nano}/scorer', prompts: '{nano}/prompts/evaluation.txt', pictures: 1, drawing: { steps: 2 } } }\n";

#[test]
fn a_unet_that_overflows_is_named_with_its_step() {
    let sandbox = Sandbox::new();
    broken(&sandbox, "unet/diffusion_pytorch_model.safetensors", "conv_out.weight");
    let first = fs::read_to_string(root().join("examples/nano-sd/prompts/evaluation.txt")).expect("prompts");
    let prompt = format!("for the prompt `{}`", first.lines().next().expect("a prompt"));
    for stage in [TRAJECTORIES, DRAWN, EVALUATED] {
        let output = run(&sandbox, stage);
        expect(&output, &["the U-Net gives", "at step 1 of 2 (timestep", &prompt, "`dtype: f32`"]);
    }
    expect(&run(&sandbox, EVALUATED), &["the pictures of `teacher` cannot be drawn"]);
    let output = sandbox.run(&["generate", "broken", "--prompt", "a red circle", "--steps", "3"]);
    expect(&output, &["the U-Net gives", "at step 1 of 3 (timestep", "for the prompt `a red circle`"]);
    assert!(!sandbox.path("pictures/000.png").exists());
}

#[test]
fn an_autoencoder_that_overflows_is_named_with_the_prompt_or_the_picture() {
    let sandbox = Sandbox::new();
    let file = "vae/diffusion_pytorch_model.safetensors";
    broken(&sandbox, file, "decoder.conv_out.weight");
    for (stage, of) in [(EVALUATED, "for the noise of the prompt `"), (SCORED, "for the prompt `")] {
        expect(&run(&sandbox, stage), &["the model's `vae` gives", of, "`dtype: f32`"]);
    }
    let output = sandbox.run(&["generate", "broken", "--prompt", "a red circle", "--steps", "2"]);
    expect(&output, &["the model's `vae` gives", "for the prompt `a red circle`"]);
    assert!(!sandbox.path("pictures/000.png").exists());

    broken(&sandbox, file, "encoder.conv_out.weight");
    for stage in [NOISED, ENCODED] {
        expect(&run(&sandbox, stage), &["the model's `vae` gives", "for the picture ", ".png"]);
    }
}

#[test]
fn a_text_encoder_that_overflows_is_named_with_the_prompt() {
    let sandbox = Sandbox::new();
    broken(&sandbox, "text_encoder/model.safetensors", "final_layer_norm.weight");
    for stage in [TRAJECTORIES, DRAWN, NOISED, ENCODED, EVALUATED] {
        expect(&run(&sandbox, stage), &["the model's `text_encoder` gives", "for the prompt `"]);
    }
    let output = sandbox.run(&["generate", "broken", "--prompt", "a red circle"]);
    expect(&output, &["the model's `text_encoder` gives", "for the prompt `a red circle`"]);
}

#[test]
fn a_scorer_that_overflows_scores_nothing() {
    for (tensor, words) in [
        ("text_projection.weight", "the scorer gives NaN for the text `"),
        ("visual_projection.weight", "the scorer gives NaN for the picture that `teacher` drew of `"),
    ] {
        let sandbox = Sandbox::new();
        broken(&sandbox, "scorer/model.safetensors", tensor);
        expect(&run(&sandbox, &EVALUATED.replace("{nano}/scorer", "broken/scorer")), &[words]);
    }
}
