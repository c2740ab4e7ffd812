//! The kinds of files: valid ones to begin with, and what reads them.

use std::fs;
use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device};
use laptop_diff::config::{Override, PipelineFile};
use laptop_diff::data::{Latents, pictures as ours};
use laptop_diff::model::clip::ClipTokenizer;
use laptop_diff::model::files::contents;
use laptop_diff::model::unet::UNetConfig;
use laptop_diff::model::{ModelDirectory, Part, Weights};
use laptop_diff::sample::{self, NoiseSchedule, SAMPLERS};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chance::Chance;
use crate::{Allowance, json, pictures, survive, weights, yaml};

/// serde's values take up to 32 bytes for two of JSON, and a list doubles as it grows.
const OF_JSON: Allowance = Allowance { factor: 64, floor: 1 << 20 };

fn root() -> PathBuf {
    // At run time: a test that was built here may run from a copy of the repository elsewhere.
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from)
}

fn nano() -> PathBuf {
    root().join("examples/nano-sd")
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the file is in git")).expect("it is JSON")
}

/// A folder in memory where the system has one: a case takes microseconds, a disk milliseconds.
fn sandbox() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary folder can be written")
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a temporary folder can be written");
}

fn changed_json(valid: Value) -> impl Fn(&mut Chance) -> Vec<u8> {
    move |chance| json::changed(&valid, chance)
}

/// Every tensor that a file of weights claims to have is read.
fn read_all(path: &Path) -> Option<Weights> {
    let weights = Weights::open(path).ok()?;
    for name in weights.names() {
        drop((weights.shape(name), weights.dtype(name)));
        drop(weights.tensor(name, DType::F32, &Device::Cpu));
    }
    drop(weights.check_finite());
    Some(weights)
}

#[test]
fn headers_of_weights() {
    let sandbox = sandbox();
    let path = sandbox.path().join("model.safetensors");
    survive("header", OF_JSON, weights::changed, |file| {
        write(&path, file);
        drop(read_all(&path));
    });
}

#[test]
fn indexes_of_shards() {
    let sandbox = sandbox();
    let folder = sandbox.path().join("model");
    fs::create_dir(&folder).expect("a temporary folder can be written");
    let shard = |name: &str| {
        let header = json!({ name: { "dtype": "U8", "shape": [1], "data_offsets": [0, 1] } }).to_string();
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0]].concat()
    };
    write(&folder.join("model-1.safetensors"), &shard("a"));
    write(&folder.join("model-2.safetensors"), &shard("b"));
    write(&sandbox.path().join("outside.safetensors"), &shard("secret"));
    let outside = sandbox.path().join("outside.safetensors").to_string_lossy().into_owned();
    let places = [
        "../outside.safetensors".to_owned(),
        "model-1.safetensors/../../outside.safetensors".into(),
        outside,
    ];
    let valid = json!({
        "metadata": { "total_size": 2 },
        "weight_map": { "a": "model-1.safetensors", "b": "model-2.safetensors" },
    });
    let make = |chance: &mut Chance| {
        let mut valid = valid.clone();
        if chance.once_in(2) {
            let name = *chance.pick(&["a", "secret"]);
            valid["weight_map"][name] = json!(chance.pick(&places));
        }
        if chance.once_in(4) { valid.to_string().into_bytes() } else { json::changed(&valid, chance) }
    };
    let index = folder.join("model.safetensors.index.json");
    survive("index", OF_JSON, make, |file| {
        write(&index, file);
        let found = read_all(&folder);
        assert!(
            found.is_none_or(|weights| !weights.contains("secret")),
            "a file outside the folder was read"
        );
    });
}

#[test]
fn indexes_of_latents() {
    let sandbox = sandbox();
    let folder = sandbox.path().join("latents");
    fs::create_dir(&folder).expect("a temporary folder can be written");
    let outside = sandbox.path().join("outside.safetensors").to_string_lossy().into_owned();
    let valid = json!({
        "format": 1,
        "latents": [{ "file": "../outside.safetensors", "rows": 1 }, { "file": outside, "rows": 1 }],
        "texts": [{ "file": "texts-000000.safetensors", "rows": 1 }],
        "captions": ["a"],
    });
    let index = folder.join("latents.json");
    survive("latents", OF_JSON, changed_json(valid), |file| {
        write(&index, file);
        // No file is there; an error that says so has looked for it.
        let error = Latents::open(&folder).err().expect("there are no shards").to_string();
        let inside = folder.to_string_lossy();
        assert!(!error.contains("No such file") || error.starts_with(&*inside), "{error}");
        assert!(!error.contains("No such file") || !error.contains("/../"), "{error}");
    });
}

#[test]
fn indexes_of_pipelines() {
    let valid = json!({
        "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
        "../outside": ["diffusers", "AutoencoderKL"], "/": [null, null], "safety_checker": [null, null],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    });
    let paths = [
        "unet/config.json",
        "unet/model.safetensors",
        "../outside/config.json",
        "/config.json",
        "a/../b.json",
        "tokenizer/../../vocab.json",
    ];
    survive("model-index", OF_JSON, changed_json(valid), |file| {
        let Ok(index) = serde_json::from_slice::<serde_json::Map<_, _>>(file) else { return };
        let files = contents::choose(&paths.map(str::to_owned), Some(&index), None)
            .expect("no variant was asked for");
        for file in files.iter().flat_map(|file| [&file.from, &file.to]) {
            let plain = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
            assert!(plain, "{file} leads out of its folder");
        }
    });
}

#[test]
fn configs_of_unets() {
    // The largest accepted shape has 4096 modules; its list of tensors takes some twenty megabytes.
    let allowance = Allowance { factor: 64, floor: 16 << 20 };
    let configs = ["sd-v1-5", "sdxl-base"]
        .map(|name| read_json(&root().join(format!("tests/golden/configs/{name}.json"))));
    let make = |chance: &mut Chance| json::changed(chance.clone().pick(&configs), chance);
    survive("unet-config", allowance, make, |file| {
        if let Ok(config) = UNetConfig::parse(&String::from_utf8_lossy(file)) {
            let inventory = config.inventory();
            let (height, width) = config.sample_size;
            let sums = (inventory.macs(height, width), inventory.state_elements(height, width));
            assert!(inventory.parameters() > 0 && sums.0 > 0 && sums.1 > 0);
            drop(config.to_json());
        }
    });
}

/// The small model without weights, of which one file is changed.
fn model_without_weights() -> TempDir {
    let sandbox = sandbox();
    for file in ["model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json"] {
        let to = sandbox.path().join(file);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a temporary folder can be written");
        fs::copy(nano().join(file), to).expect("as above");
    }
    // A file with one tensor that no part has: a part is refused when it looks for its first weight.
    let header = br#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let file = [&(header.len() as u64).to_le_bytes()[..], header, &[0]].concat();
    for part in ["vae/diffusion_pytorch_model", "text_encoder/model"] {
        write(&sandbox.path().join(format!("{part}.safetensors")), &file);
    }
    sandbox
}

#[test]
fn configs_of_autoencoders() {
    let sandbox = model_without_weights();
    let path = sandbox.path().join("vae/config.json");
    let directory = ModelDirectory::open(sandbox.path()).expect("a model");
    let tiny = json!({
        "_class_name": "AutoencoderTiny", "encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8],
        "num_encoder_blocks": [1, 2], "num_decoder_blocks": [2, 1], "scaling_factor": 1.0, "latent_channels": 4,
    });
    let configs = [read_json(&nano().join("vae/config.json")), tiny];
    // The largest accepted shape has 256 layers on each of 16 levels.
    let allowance = Allowance { factor: 64, floor: 16 << 20 };
    let make = |chance: &mut Chance| json::changed(chance.clone().pick(&configs), chance);
    survive("vae-config", allowance, make, |file| {
        write(&path, file);
        drop(directory.vae_config().map(|config| config.downscale()));
        drop(directory.vae(DType::F32, &Device::Cpu));
    });
}

#[test]
fn configs_of_text_encoders() {
    let sandbox = model_without_weights();
    let path = sandbox.path().join("text_encoder/config.json");
    let directory = ModelDirectory::open(sandbox.path()).expect("a model");
    survive(
        "text-config",
        OF_JSON,
        changed_json(read_json(&nano().join("text_encoder/config.json"))),
        |file| {
            write(&path, file);
            drop(directory.text_encoder(Part::TextEncoder, DType::F32, &Device::Cpu));
        },
    );
}

#[test]
fn configs_of_schedulers() {
    // A thousand timesteps are computed in f64.
    let valid = json!({
        "_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "timestep_spacing": "leading",
        "steps_offset": 1, "set_alpha_to_one": false, "trained_betas": null, "clip_sample": false,
        "final_sigmas_type": "zero", "rescale_betas_zero_snr": false, "skip_prk_steps": true,
    });
    let allowance = Allowance { factor: 64, floor: 4 << 20 };
    survive("scheduler", allowance, changed_json(valid), |file| {
        let Ok(config) = serde_json::from_slice(file) else { return };
        let Ok(schedule) = NoiseSchedule::from_config(&config) else { return };
        for sampler in SAMPLERS {
            for steps in [1, 25, 10_000] {
                drop(sample::Path::new(*sampler, &schedule, steps));
            }
        }
    });
}

/// The golden tokenizer with `name` changed by `make`.
fn tokenizer(kind: &str, name: &str, make: impl Fn(&mut Chance) -> Vec<u8>, beside: &[&str]) {
    // The compiled pattern of words, the cache of words, and tables of bytes.
    let allowance = Allowance { factor: 256, floor: 4 << 20 };
    let sandbox = sandbox();
    for file in beside {
        fs::copy(root().join("tests/golden/tokenizer").join(file), sandbox.path().join(file))
            .expect("as above");
    }
    survive(kind, allowance, make, |file| {
        write(&sandbox.path().join(name), file);
        if let Ok(tokenizer) = ClipTokenizer::open(sandbox.path()) {
            drop(tokenizer.encode(&["a red circle", "", "Ünïcode 漢字 \u{0}"]));
        }
    });
}

/// The first words of the golden vocabulary: enough to encode, and quick to read.
fn vocabulary() -> Value {
    let whole = read_json(&root().join("tests/golden/tokenizer/vocab.json"));
    let words =
        whole.as_object().expect("a map").iter().filter(|(_, id)| id.as_u64().is_some_and(|id| id < 128));
    let mut words: serde_json::Map<_, _> = words.map(|(word, id)| (word.clone(), id.clone())).collect();
    words.insert("<|startoftext|>".to_owned(), json!(128));
    words.insert("<|endoftext|>".to_owned(), json!(129));
    Value::Object(words)
}

#[test]
fn vocabularies() {
    tokenizer("vocabulary", "vocab.json", changed_json(vocabulary()), &["merges.txt"]);
}

#[test]
fn merges() {
    let valid =
        fs::read_to_string(root().join("tests/golden/tokenizer/merges.txt")).expect("the file is in git");
    let make = |chance: &mut Chance| {
        let mut lines: Vec<&str> = valid.lines().collect();
        for _ in 0..=chance.below(3) {
            let (at, other) = (chance.below(lines.len()), chance.below(lines.len()));
            match chance.below(5) {
                0 => lines.swap(at, other),
                1 => lines.insert(at, lines[other]),
                2 if lines.len() > 1 => drop(lines.remove(at)),
                _ => {
                    lines[at] =
                        *chance.pick(&["", " ", "a", "a b c", "\u{0} \u{0}", "</w> </w>", "#version", "ü 漢"])
                }
            }
        }
        let mut file = lines.join("\n").into_bytes();
        if chance.once_in(4) {
            crate::bytes::change(&mut file, chance);
        }
        file
    };
    tokenizer("merges", "merges.txt", make, &["vocab.json"]);
}

#[test]
fn tokenizers_in_one_file() {
    let merges =
        fs::read_to_string(root().join("tests/golden/tokenizer/merges.txt")).expect("the file is in git");
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let valid = json!({
        "version": "1.0",
        "added_tokens": [{ "id": 129, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true }],
        "normalizer": { "type": "Sequence", "normalizers": [{ "type": "NFC" }, { "type": "Lowercase" }] },
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null, "decoder": null,
        "model": { "type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "merges": merges, "vocab": vocabulary() },
    });
    tokenizer("tokenizer", "tokenizer.json", changed_json(valid), &[]);
}

#[test]
fn configs_of_tokenizers() {
    let valid = json!({
        "model_max_length": 77, "pad_token": "<|endoftext|>", "bos_token": { "content": "<|startoftext|>" },
        "eos_token": "<|endoftext|>", "unk_token": { "content": "<|endoftext|>", "lstrip": false },
        "added_tokens_decoder": { "129": { "content": "<|endoftext|>", "special": true } },
    });
    tokenizer(
        "tokenizer-config",
        "tokenizer_config.json",
        changed_json(valid),
        &["vocab.json", "merges.txt"],
    );
}

#[test]
fn pipelines() {
    let files = ["nano50", "nano-refine", "nano-sweep", "nano-criteria"];
    let texts =
        files.map(|name| fs::read_to_string(root().join(format!("pipelines/{name}.yaml"))).expect("in git"));
    let valid: Vec<&str> = texts.iter().map(String::as_str).collect();
    let sets: Vec<Override> =
        ["selection.ratio=0.7", "seed=3"].iter().filter_map(|text| Override::set(text).ok()).collect();
    // The text is kept for each override, and every error holds it for its underline.
    let allowance = Allowance { factor: 256, floor: 1 << 20 };
    let make = |chance: &mut Chance| yaml::changed(&valid, chance).into_bytes();
    survive("pipeline", allowance, make, |file| {
        let text = String::from_utf8_lossy(file);
        for overrides in [&[][..], &sets] {
            match PipelineFile::parse(Path::new("n.yaml"), &text, overrides).and_then(|file| {
                let first = vec![0; file.sweep().axes.len()];
                file.combination(&first)
            }) {
                Ok(pipeline) => assert!(!pipeline.stages.is_empty()),
                Err(error) => drop(format!("{:?}", miette::Report::new(error))),
            }
        }
    });
}

/// Deflate shrinks at most 1032 times, and a JPEG's blocks of one colour about 1400 times; decoded pictures may be of 16
/// bits and are copied as 8.
const OF_PICTURES: Allowance = Allowance { factor: 2048, floor: 1 << 20 };

#[test]
fn pngs() {
    let valid = pictures::pngs();
    for file in &valid {
        ours::decode(file, Path::new("a.png")).expect("our encoder wrote it");
    }
    survive(
        "png",
        OF_PICTURES,
        |chance| pictures::changed_png(&valid, chance),
        |file| {
            drop(ours::decode(file, Path::new("a.png")));
        },
    );
}

#[test]
fn jpegs() {
    let valid = pictures::jpegs();
    for file in &valid {
        ours::decode(file, Path::new("a.jpg")).expect("our encoder wrote it");
    }
    survive(
        "jpeg",
        OF_PICTURES,
        |chance| pictures::changed_jpeg(&valid, chance),
        |file| {
            drop(ours::decode(file, Path::new("a.jpg")));
        },
    );
}
