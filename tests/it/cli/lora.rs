//! `export --lora` and the parameter `lora` of `use: export` write the same file.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use crate::common::{Sandbox, expect_code, root};

/// Two layers of nano-sd and one of its text encoder.
fn lora(sandbox: &Sandbox, name: &str) {
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("a tensor");
    let block = "lora_unet_mid_block_attentions_0_transformer_blocks_0";
    let keys = [
        format!("{block}_attn1_to_q.dora_scale"),
        format!("{block}_ff_net_2.alpha"),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha".to_owned(),
    ];
    let tensors: HashMap<String, Tensor> = keys.into_iter().map(|key| (key, zeros((1, 1)))).collect();
    let path = sandbox.path(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
    candle_core::safetensors::save(&tensors, path).expect("a writable folder");
}

#[test]
fn the_command_and_the_stage_write_the_renamed_lora() {
    let sandbox = Sandbox::new();
    lora(&sandbox, "style.safetensors");
    let nano = root().join("examples/nano-sd");
    let export = |more: &[&str]| {
        let arguments =
            ["export", &nano.to_string_lossy(), "--to", "diffusers", "--output", "out/nano", "--json"];
        sandbox.run(&[arguments.as_slice(), more].concat())
    };
    fs::create_dir(sandbox.path("out")).expect("a writable folder");
    lora(&sandbox, "other/style.safetensors");
    let twice = export(&["--lora", "style.safetensors", "--lora", "other/style.safetensors"]);
    expect_code(&twice, 2);
    assert!(String::from_utf8_lossy(&twice.stderr).contains("out/style-for-nano.safetensors"));
    assert!(!sandbox.path("out/nano").exists());

    let output = export(&["--lora", "style.safetensors"]);
    expect_code(&output, 0);
    let written: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    let expected =
        json!([{ "path": "out/style-for-nano.safetensors", "layers": 2, "renamed": 0, "pruned": [] }]);
    assert_eq!(written["loras"], expected);
    let by_hand = fs::read(sandbox.path("out/style-for-nano.safetensors")).expect("it was written");

    let file = sandbox.write(
        "lora.yaml",
        "format: 1\nname: lora\nstages:\n  - { id: m, use: load, with: { model: '{nano}' } }\n  \
         - { id: out, use: export, with: { model: m, to: diffusers, lora: style.safetensors } }\n",
    );
    expect_code(&sandbox.run(&["run", &file.to_string_lossy()]), 0);
    let stage = sandbox.path("runs/lora/out");
    assert_eq!(fs::read(stage.join("lora.safetensors")).expect("it was written"), by_hand);
    let record: BTreeMap<String, Value> =
        serde_json::from_slice(&fs::read(stage.join("export.json")).expect("a record")).expect("JSON");
    assert_eq!(record["loras"][0]["path"], "lora.safetensors");
    // Another LoRA gives another key.
    let mut bytes = fs::read(sandbox.path("style.safetensors")).expect("it is there");
    *bytes.last_mut().expect("it has numbers") ^= 1;
    fs::write(sandbox.path("style.safetensors"), bytes).expect("a writable folder");
    let plan = sandbox.run(&["plan", &file.to_string_lossy(), "--exit-code"]);
    assert_ne!(plan.status.code(), Some(0), "something has to run");
}
