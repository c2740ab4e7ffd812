//! Models of every kind that users bring, made by `tests/zoo/make.py` with the real diffusers: each is read right, or
//! refused by `load` in words that say why.
//!
//! That `load` on SDXL stays under a second is a measurement: `tests/parity/full.sh` writes models of the real shapes, and
//! `laptop-diff run` prints the time of each stage. Here it would depend on what else the machine does.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output};

use candle_core::{DType, Device, Tensor};
use laptop_diff::data::Encoder;
use laptop_diff::model::{Conditioning, ModelDirectory, Part, Prediction, Weights};
use laptop_diff::sample::NoiseSchedule;
use serde::Deserialize;

use crate::common::{Sandbox, root};

/// A row of `expected.json`.
#[derive(Deserialize)]
struct Row {
    model: String,
    /// Of `load`.
    outcome: Outcome,
    /// Of `inspect`.
    inspect: Outcome,
    /// What `load` says: in its error, or as notes.
    words: Vec<String>,
    /// Further parameters of `load`.
    load: serde_json::Map<String, serde_json::Value>,
    /// Inputs, and what diffusers and transformers make of them.
    golden: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Right,
    Refused,
}

/// Two implementations in f32 over some thirty layers: about 1e-6 each.
const TOLERANCE: f32 = 1e-4;

#[test]
#[ignore = "needs diffusers: LAPTOP_DIFF_TEST_PYTHON names a python that has it"]
fn every_model_of_the_zoo_is_right_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let python = std::env::var("LAPTOP_DIFF_TEST_PYTHON").expect("LAPTOP_DIFF_TEST_PYTHON is set");
    let script = root().join("tests/zoo/make.py");
    let made = Command::new(python).arg(script).arg(folder.path()).env("HF_HUB_OFFLINE", "1").output();
    let made = made.expect("python starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let rows = std::fs::read(folder.path().join("expected.json")).expect("the script writes it");
    let rows: Vec<Row> = serde_json::from_slice(&rows).expect("rows");
    assert!(rows.len() > 100, "{} models", rows.len());
    let mut wrong = String::new();
    for row in &rows {
        for fault in faults(folder.path(), row) {
            writeln!(wrong, "{}: {fault}", row.model).expect("text");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What is wrong with how the program treats a model.
fn faults(zoo: &Path, row: &Row) -> Vec<String> {
    let sandbox = Sandbox::new();
    let model = zoo.join(&row.model);
    let mut with = serde_json::Map::from_iter([("model".to_owned(), model.to_string_lossy().into())]);
    with.extend(row.load.clone());
    if let Some(tokenizer) = with.get_mut("tokenizer") {
        *tokenizer = zoo.join(tokenizer.as_str().expect("a path")).to_string_lossy().into();
    }
    let stage = serde_json::json!({ "id": "teacher", "use": "load", "with": with });
    let file = sandbox.write("zoo.yaml", &format!("format: 1\nname: zoo\nstages:\n  - {stage}\n"));
    let load = sandbox.run(&["run", &file.to_string_lossy()]);
    let inspect = sandbox.run(&["inspect", &model.to_string_lossy()]);

    let mut faults = Vec::new();
    let needed = if row.outcome == Outcome::Right { 0 } else { 4 };
    if load.status.code() != Some(needed) {
        faults.push(format!("`load` ends with {}, not {needed}: {}", load.status, said(&load, &model)));
    }
    let text = said(&load, &model);
    faults.extend(
        row.words.iter().filter(|word| !text.contains(*word)).map(|word| format!("no {word:?} in {text}")),
    );
    // `inspect` shows the parts of what `load` refuses; it must not stay silent.
    let (ends, shown) = (inspect.status.code(), said(&inspect, &model));
    let silent = row.inspect == Outcome::Refused && ends == Some(0) && !shown.contains("refused");
    if !matches!(ends, Some(0 | 4)) || silent || (row.inspect == Outcome::Right && ends != Some(0)) {
        faults.push(format!("`inspect` ends with {}: {shown}", inspect.status));
    }
    for (what, text) in [("load", &text), ("inspect", &shown)] {
        let cache = sandbox.path("cache");
        let wrong =
            ["panicked", "BUG", "backtrace", "candle_core::"].into_iter().find(|word| text.contains(word));
        faults.extend(wrong.map(|word| format!("`{what}` says {word:?}: {text}")));
        if row.outcome == Outcome::Refused && text.contains(&*cache.to_string_lossy()) {
            faults.push(format!("`{what}` names the cache: {text}"));
        }
    }
    if let Some(golden) = row.golden.as_ref().filter(|_| faults.is_empty()) {
        let teacher = sandbox.path("runs/zoo/teacher");
        match differences(&teacher, &zoo.join(golden)) {
            Ok(differences) => faults.extend(differences),
            Err(error) => faults.push(format!("cannot be computed: {error}")),
        }
    }
    faults
}

/// What a command printed, on one line and without the model's path, which has words of its own.
fn said(output: &Output, model: &Path) -> String {
    let text =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).join(" ");
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c == '│').filter(|word| !word.is_empty()).collect();
    words.join(" ").replace(&*model.to_string_lossy(), "MODEL")
}

/// Where the loaded model computes something else than diffusers and transformers.
fn differences(model: &Path, golden: &Path) -> miette::Result<Vec<String>> {
    let (directory, golden) = (ModelDirectory::open(model)?, Weights::open(golden)?);
    let get = |name: &str| golden.tensor(name, golden.dtype(name)?, &Device::Cpu);
    let mut found = Vec::new();
    let mut compare = |what: &str, ours: &Tensor, theirs: &Tensor| {
        if let Some(off) = off(ours, theirs) {
            found.push(format!("{what} is off by {off}"));
        }
    };
    if golden.contains("unet.prediction") {
        let unet = directory.unet(DType::F32, &Device::Cpu)?;
        let optional = |name: &str| golden.contains(name).then(|| get(name)).transpose();
        let conditioning = Conditioning {
            encoder_hidden_states: get("unet.encoder_hidden_states")?,
            text_embeds: optional("unet.text_embeds")?,
            time_ids: optional("unet.time_ids")?,
        };
        let prediction = unet.forward(&get("unet.sample")?, &get("unet.timestep")?, &conditioning);
        compare(
            "the U-Net",
            &prediction.map_err(laptop_diff::model::ModelError::from)?,
            &get("unet.prediction")?,
        );
    }
    for (encoder, tokenizer) in [("text_encoder", Part::Tokenizer), ("text_encoder_2", Part::Tokenizer2)] {
        let name = format!("{encoder}.ids");
        if golden.contains(&name) {
            let prompts: Vec<String> = prompts(&golden);
            let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
            let ids = directory.tokenizer(tokenizer)?.encode(&prompts)?.ids;
            compare(&format!("{name} of the tokenizer"), &ids, &get(&name)?);
        }
    }
    if golden.contains("states") {
        let encoded = Encoder::open(&directory, DType::F32, &Device::Cpu)?.encode(&prompts(&golden))?;
        compare("the text", &encoded.encoder_hidden_states, &get("states")?);
        if let Some(pooled) = &encoded.text_embeds {
            compare("the pooled text", pooled, &get("text_embeds")?);
        }
    }
    if golden.contains("alphas_cumprod") {
        let schedule = NoiseSchedule::open(&model.join("scheduler/scheduler_config.json"))?;
        let alphas: Vec<f32> = schedule.alphas_cumprod().iter().map(|alpha| *alpha as f32).collect();
        let alphas = Tensor::new(alphas, &Device::Cpu).expect("a list");
        compare("the noise schedule", &alphas, &get("alphas_cumprod")?);
        let velocity = schedule.prediction() == Prediction::VPrediction;
        if (golden.metadata()["prediction"] == "v_prediction") != velocity {
            found.push(format!("the U-Net predicts {}", golden.metadata()["prediction"]));
        }
    }
    if golden.contains("vae.latents") {
        let pictures = directory.vae(DType::F32, &Device::Cpu)?.decode(&get("vae.latents")?);
        let pictures = pictures.map_err(laptop_diff::model::ModelError::from)?;
        if let Some(off) = off(&pictures, &get("vae.pictures")?) {
            found.push(format!("the autoencoder is off by {off}"));
        }
    }
    Ok(found)
}

fn prompts(golden: &Weights) -> Vec<String> {
    serde_json::from_str(&golden.metadata()["prompts"]).expect("a list of prompts")
}

/// The relative distance of two tensors, if it is too large.
fn off(ours: &Tensor, theirs: &Tensor) -> Option<f32> {
    let length = |tensor: &Tensor| tensor.sqr()?.sum_all()?.to_scalar::<f32>();
    let distance = || -> candle_core::Result<f32> {
        let (ours, theirs) = (ours.to_dtype(DType::F32)?, theirs.to_dtype(DType::F32)?);
        Ok((length(&(ours - &theirs)?)? / length(&theirs)?).sqrt())
    };
    let distance = distance().unwrap_or(f32::NAN);
    (distance.is_nan() || distance > TOLERANCE).then_some(distance)
}
