//! `use: load` on folders as diffusers writes and people download them: what of them becomes the artefact.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Sandbox, expect_code, root};

/// A copy of the small model whose U-Net's weights are called `weights`.
fn model(sandbox: &Sandbox, weights: &str) -> PathBuf {
    let (from, to) = (root().join("examples/nano-sd"), sandbox.path("model"));
    for part in ["", "unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        fs::create_dir_all(to.join(part)).expect("a writable folder");
        for entry in fs::read_dir(from.join(part)).expect("a part of the model") {
            let path = entry.expect("a file of it").path();
            if path.is_file() {
                let target = to.join(part).join(path.file_name().expect("a file has a name"));
                fs::copy(&path, target).expect("a writable folder");
            }
        }
    }
    let unet = to.join("unet");
    fs::rename(unet.join("diffusion_pytorch_model.safetensors"), unet.join(weights)).expect("as above");
    to
}

/// Loads the folder `model` into a run called `small`.
fn load(sandbox: &Sandbox, with: &str) -> std::process::Output {
    let stage = format!("{{ id: teacher, use: load, with: {{ model: model{with} }} }}");
    let file = sandbox.write("small.yaml", &format!("format: 1\nname: small\nstages:\n  - {stage}\n"));
    sandbox.run(&["run", &file.to_string_lossy()])
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_variant_becomes_the_model_that_full_precision_would_be() {
    let sandbox = Sandbox::new();
    model(&sandbox, "diffusion_pytorch_model.safetensors");
    expect_code(&load(&sandbox, ""), 0);
    let plain = sandbox.digests("small");

    let sandbox = Sandbox::new();
    let folder = model(&sandbox, "diffusion_pytorch_model.fp16.safetensors");
    for beside in ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors", "model.onnx"] {
        fs::write(folder.join("unet").join(beside), b"not this").expect("a writable folder");
    }
    expect_code(&load(&sandbox, ", variant: fp16"), 0);
    assert_eq!(sandbox.digests("small"), plain);
    let unet = sandbox.path("runs/small/teacher/unet");
    assert_eq!(names(&unet), ["config.json", "diffusion_pytorch_model.safetensors"]);
}

#[test]
fn shards_of_a_variant_are_found_by_their_index() {
    let sandbox = Sandbox::new();
    let shard = "diffusion_pytorch_model.fp16-00001-of-00001.safetensors";
    let unet = model(&sandbox, shard).join("unet");
    let header = fs::read(unet.join(shard)).expect("the shard");
    let length = u64::from_le_bytes(header[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&header[8..8 + length]).expect("a header");
    let tensors = header.as_object().expect("an object").keys().filter(|name| *name != "__metadata__");
    let map: serde_json::Map<_, _> = tensors.map(|name| (name.clone(), shard.into())).collect();
    let index = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
    fs::write(unet.join("diffusion_pytorch_model.safetensors.index.fp16.json"), index).expect("as above");

    expect_code(&load(&sandbox, ", variant: fp16"), 0);
    let unet = sandbox.path("runs/small/teacher/unet");
    assert_eq!(names(&unet), ["config.json", shard, "diffusion_pytorch_model.safetensors.index.json"]);
    expect_code(&sandbox.run(&["inspect", &sandbox.path("runs/small/teacher").to_string_lossy()]), 0);
}

/// Whoever puts a U-Net beside the other parts by hand need not know of the index.
#[test]
fn a_unet_that_the_index_does_not_name_is_loaded() {
    let sandbox = Sandbox::new();
    let folder = model(&sandbox, "diffusion_pytorch_model.safetensors");
    let index = folder.join("model_index.json");
    let mut parts: serde_json::Map<_, _> =
        serde_json::from_slice(&fs::read(&index).expect("an index")).expect("an object");
    parts.remove("unet").expect("nano-sd has a U-Net");
    fs::write(&index, serde_json::Value::Object(parts).to_string()).expect("a writable folder");
    expect_code(&load(&sandbox, ""), 0);
    let teacher = sandbox.path("runs/small/teacher");
    assert_eq!(names(&teacher.join("unet")), ["config.json", "diffusion_pytorch_model.safetensors"]);
    expect_code(&sandbox.run(&["inspect", &teacher.to_string_lossy()]), 0);
}

#[test]
fn an_unknown_variant_is_a_wrong_input() {
    let sandbox = Sandbox::new();
    model(&sandbox, "diffusion_pytorch_model.bf16.safetensors");
    let output = load(&sandbox, ", variant: fp16");
    expect_code(&output, 4);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("variant `fp16`") && text.contains("available: bf16"), "{text}");
}

/// candle adds a backtrace to the text of its errors if the environment asks for one.
#[test]
fn an_error_is_a_sentence_even_where_backtraces_are_asked_for() {
    let sandbox = Sandbox::new();
    let config = model(&sandbox, "diffusion_pytorch_model.safetensors").join("text_encoder/config.json");
    let text = fs::read_to_string(&config)
        .expect("a config")
        .replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 7");
    fs::write(&config, text).expect("a writable folder");
    let stage = "format: 1\nname: small\nstages:\n  - { id: teacher, use: load, with: { model: model } }\n";
    let file = sandbox.write("small.yaml", stage);
    let mut command = sandbox.command(&["run", &file.to_string_lossy()]);
    let output = command.env("RUST_BACKTRACE", "full").output().expect("the program starts");
    expect_code(&output, 4);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("7 heads"), "{text}");
    assert!(!text.contains("backtrace") && !text.contains(" at ") && text.lines().count() < 20, "{text}");
}

#[test]
fn what_is_not_a_model_is_named_for_what_it_is() {
    for (name, bytes, words) in [
        ("model.gguf", &b"GGUF\x03\x00\x00\x00"[..], ["GGUF", "safetensors"]),
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            ["Git-LFS", "git lfs pull"],
        ),
        ("model.safetensors", b"<!DOCTYPE html><html></html>", ["web page", "download"]),
    ] {
        let sandbox = Sandbox::new();
        fs::write(sandbox.path(name), bytes).expect("a writable folder");
        let stage = format!("{{ id: teacher, use: load, with: {{ model: {name} }} }}");
        let file = sandbox.write("small.yaml", &format!("format: 1\nname: small\nstages:\n  - {stage}\n"));
        for arguments in [["run", &file.to_string_lossy()], ["inspect", name]] {
            let output = sandbox.run(&arguments);
            expect_code(&output, 4);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(words.iter().all(|word| text.contains(word)) && text.contains(name), "{text}");
        }
    }
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_name_on_the_hub_says_how_to_build_for_it() {
    let sandbox = Sandbox::new();
    let text = "format: 1\nname: small\nstages:\n  - { id: m, use: load, with: { model: owner/name } }\n";
    let output = sandbox.run(&["plan", &sandbox.write("small.yaml", text).to_string_lossy()]);
    expect_code(&output, 4);
    let text = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    for word in ["hub::not_built", "no folder `owner/name`", "with the default features", "small.yaml:4:"] {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}
