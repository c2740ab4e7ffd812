//! Every part of a model is opened before any work, and what cannot be used, or is not read, is named with its path.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use laptop_diff::base::UnitId;
use laptop_diff::model::{Checkpoint, ModelDirectory, Part, ScorerFolders, Weights};
use laptop_diff::prune::{ExportRequest, Format};
use laptop_diff::survey::{Depth, State, Survey, survey_directory, survey_file};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::golden::Golden;
use crate::common::root;
use crate::small_unets;

const PARTS: [&str; 5] = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"];

/// A copy of the small model.
fn nano() -> (TempDir, PathBuf) {
    let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
    let (from, to) = (root().join("examples/nano-sd"), sandbox.path().join("model"));
    for part in ["", "unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        fs::create_dir_all(to.join(part)).expect("as above");
        for entry in fs::read_dir(from.join(part)).expect("a part of the model") {
            let path = entry.expect("a file of it").path();
            if path.is_file() {
                fs::copy(&path, to.join(part).join(path.file_name().expect("a name"))).expect("as above");
            }
        }
    }
    (sandbox, to)
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("it is there")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("a temporary folder can be written");
}

/// The weights of a part of nano-sd.
fn weights(model: &Path, part: &str) -> PathBuf {
    let stem = if part == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
    model.join(part).join(format!("{stem}.safetensors"))
}

fn edit_weights(path: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    // A copy, because the map of the old file would otherwise change under the tensors.
    let mut tensors =
        candle_core::safetensors::load_buffer(&fs::read(path).expect("it is there"), &Device::Cpu)
            .expect("weights");
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, path).expect("a temporary folder can be written");
}

fn poison(path: &Path, inside: &str) {
    edit_weights(path, |tensors| {
        let name = tensors.keys().filter(|name| name.contains(inside)).min().expect("a tensor").clone();
        let shape = tensors[&name].shape().clone();
        let nan = Tensor::full(f32::NAN, shape, &Device::Cpu).and_then(|nan| nan.to_dtype(DType::F16));
        tensors.insert(name, nan.expect("a tensor"));
    });
}

fn survey(model: &Path) -> miette::Result<Survey> {
    Ok(survey_directory(model, None, Depth::Weights)?.0.or_refusal()?)
}

/// The model is refused, and every word is in the one message, which names the user's path.
#[track_caller]
fn refused(model: &Path, words: &[&str]) {
    let error = survey(model).expect_err("it is refused").to_string();
    let model = model.to_string_lossy();
    for word in words.iter().copied().chain([model.as_ref()]) {
        assert!(error.contains(word), "{word:?} is not in {error}");
    }
    assert!(error.lines().count() == 1, "{error}");
}

#[test]
fn every_part_of_a_model_is_usable_and_nothing_is_unread() -> miette::Result<()> {
    let (_sandbox, model) = nano();
    let found = survey(&model)?;
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    for (part, state) in &found.parts {
        let usable = PARTS.contains(&part.folder());
        assert!(matches!(state, State::Usable) == usable, "{}: {state:?}", part.folder());
    }
    assert_eq!(found.parts.len(), Part::ALL.len());
    Ok(())
}

#[test]
fn a_key_that_changes_the_computation_is_refused_in_every_part() {
    for (file, key, value, words) in [
        (
            "unet/config.json",
            "_class_name",
            json!("UNet2DModel"),
            &["UNet2DModel", "UNet2DConditionModel"][..],
        ),
        ("unet/config.json", "act_fn", json!("mish"), &["act_fn", "mish", "silu"]),
        ("unet/config.json", "class_embed_type", json!("timestep"), &["class_embed_type"]),
        (
            "vae/config.json",
            "_class_name",
            json!("AsymmetricAutoencoderKL"),
            &["AsymmetricAutoencoderKL", "AutoencoderKL", "AutoencoderTiny"],
        ),
        (
            "vae/config.json",
            "down_block_types",
            json!(["AttnDownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]),
            &["AttnDownEncoderBlock2D"],
        ),
        ("vae/config.json", "up_block_types", json!(["AttnUpDecoderBlock2D"]), &["AttnUpDecoderBlock2D"]),
        ("vae/config.json", "shift_factor", json!(0.1), &["shift_factor"]),
        ("vae/config.json", "latents_mean", json!([0.0, 0.0, 0.0, 0.0]), &["latents_mean"]),
        ("vae/config.json", "latents_std", json!([1.0, 1.0, 1.0, 1.0]), &["latents_std"]),
        ("vae/config.json", "scaling_factor", json!(0.0), &["scaling_factor"]),
        ("text_encoder/config.json", "use_attention_mask", json!(true), &["use_attention_mask"]),
        ("text_encoder/config.json", "architectures", json!(["T5EncoderModel"]), &["T5EncoderModel", "CLIP"]),
        ("text_encoder/config.json", "model_type", json!("t5"), &["t5"]),
        ("tokenizer/tokenizer_config.json", "model_max_length", json!(154), &["154", "77"]),
        ("tokenizer/tokenizer_config.json", "tokenizer_class", json!("T5Tokenizer"), &["T5Tokenizer"]),
        (
            "scheduler/scheduler_config.json",
            "prediction_type",
            json!("sample"),
            &["prediction_type", "sample"],
        ),
    ] {
        let (_sandbox, model) = nano();
        edit(&model.join(file), |config| config[key] = value);
        refused(&model, words);
    }
}

#[test]
fn another_name_of_the_same_function_is_accepted() -> miette::Result<()> {
    let (_sandbox, model) = nano();
    for part in ["unet", "vae"] {
        edit(&model.join(part).join("config.json"), |config| config["act_fn"] = json!("swish"));
    }
    survey(&model)?;
    Ok(())
}

#[test]
fn unknown_keys_tensors_and_parts_are_noted() -> miette::Result<()> {
    let (_sandbox, model) = nano();
    for part in ["unet", "vae", "text_encoder"] {
        edit(&model.join(part).join("config.json"), |config| config[format!("key_of_{part}")] = json!(3));
    }
    for part in ["vae", "text_encoder"] {
        edit_weights(&weights(&model, part), |tensors| {
            let zero = Tensor::zeros(3, DType::F16, &Device::Cpu).expect("a tensor");
            tensors.insert(format!("tensor_of_{part}"), zero);
        });
    }
    edit(&model.join("model_index.json"), |index| {
        index["image_encoder"] = json!(["transformers", "CLIPVisionModelWithProjection"]);
    });
    fs::create_dir(model.join("image_encoder")).expect("a temporary folder can be written");
    let notes = survey(&model)?.notes.join("\n");
    for word in [
        "key_of_unet",
        "key_of_vae",
        "key_of_text_encoder",
        "tensor_of_vae",
        "tensor_of_text_encoder",
        "image_encoder",
    ] {
        assert!(notes.contains(word), "{word} is not in {notes}");
    }
    Ok(())
}

#[test]
fn tensors_without_a_place_in_the_unet_are_named_for_what_they_are() {
    let attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";
    for (name, words) in [
        (format!("{attention}.to_q.lora_A.default.weight"), &["LoRA"][..]),
        (format!("{attention}.processor.to_q_lora.up.weight"), &["LoRA"]),
        (format!("{attention}.processor.to_k_ip.0.weight"), &["IP-Adapter"]),
        (format!("{attention}.to_q.weight_scale"), &["scales"]),
        ("something.weight".to_owned(), &["config.json does not account for"]),
    ] {
        let (_sandbox, model) = nano();
        edit_weights(&weights(&model, "unet"), |tensors| {
            tensors.insert(name.clone(), Tensor::zeros(3, DType::F16, &Device::Cpu).expect("a tensor"));
        });
        refused(&model, &[words, &[name.as_str()]].concat());
    }
}

#[test]
fn a_number_that_is_not_finite_is_found_in_every_part() {
    for (part, inside) in [("unet", "mid_block"), ("vae", "decoder"), ("text_encoder", "layers.1")] {
        let (_sandbox, model) = nano();
        poison(&weights(&model, part), inside);
        refused(&model, &["not finite", inside, part]);
    }
}

#[test]
fn a_git_lfs_pointer_is_named_in_place_of_weights_configuration_and_vocabulary() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for file in [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
    ] {
        let (_sandbox, model) = nano();
        fs::write(model.join(file), pointer).expect("a temporary folder can be written");
        refused(&model, &["Git-LFS pointer"]);
    }
}

#[test]
fn parts_of_different_models_do_not_fit_together() -> miette::Result<()> {
    // A text encoder of another width.
    let (_sandbox, model) = nano();
    fs::remove_dir_all(model.join("tokenizer")).expect("it is there");
    fs::remove_dir_all(model.join("text_encoder")).expect("it is there");
    Golden::open("text_encoder").write_folder(&model.join("text_encoder"));
    refused(&model, &["`unet`", "64", "`text_encoder`", "16"]);
    // A tokenizer with words that the encoder does not have.
    let (_sandbox, model) = nano();
    fs::write(model.join("tokenizer/added_tokens.json"), r#"{"<cat-toy>": 616}"#).expect("as above");
    refused(&model, &["616", "vocabulary"]);
    // SDXL's U-Net with one text encoder of the right width, and SDXL's refiner, which has only the second.
    let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
    let configs = small_unets::configs();
    let mut sdxl = configs[1].1.clone();
    sdxl["cross_attention_dim"] = json!(16);
    let model = sandbox.path().join("model");
    small_unets::save(&sdxl, 1, &model.join("unet"))?;
    Golden::open("text_encoder").write_folder(&model.join("text_encoder"));
    refused(&model, &["`text_encoder_2`"]);
    fs::rename(model.join("text_encoder"), model.join("text_encoder_2")).expect("as above");
    refused(&model, &["refiner"]);
    // A pipeline without a U-Net.
    fs::remove_dir_all(model.join("unet")).expect("as above");
    fs::write(model.join("model_index.json"), r#"{ "_class_name": "FluxPipeline" }"#).expect("as above");
    refused(&model, &["FluxPipeline", "no U-Net"]);
    Ok(())
}

/// A small model of a family whose text encoder has `layers`, as a folder and as a single file.
fn single_file(sandbox: &Path, family: &str, layers: usize) -> miette::Result<PathBuf> {
    let (folder, file) = (sandbox.join("folder"), sandbox.join("model.safetensors"));
    let families = small_unets::families();
    let mut config = families.into_iter().find(|(name, _)| *name == family).expect("a family").1;
    config["cross_attention_dim"] = json!(16);
    small_unets::save(&config, 1, &folder.join("unet"))?;
    let golden = Golden::open("text_encoder");
    golden.write_folder(&folder.join("text_encoder"));
    let path = folder.join("text_encoder/model.safetensors");
    let path = if path.exists() { path } else { weights(&folder, "text_encoder") };
    edit(&folder.join("text_encoder/config.json"), |config| config["num_hidden_layers"] = json!(layers));
    edit_weights(&path, |tensors| {
        let first: Vec<_> = tensors.iter().filter(|(name, _)| name.contains("layers.0.")).collect();
        let first: Vec<_> = first.into_iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        for layer in 0..layers {
            for (name, tensor) in &first {
                tensors.insert(name.replace("layers.0.", &format!("layers.{layer}.")), tensor.clone());
            }
        }
    });
    let model = ModelDirectory::open(&folder)?;
    let format = Format::find("comfyui")?;
    ExportRequest { model: &model, format, dtype: None, allow_unrecognised: true, loras: &[] }
        .write(&file)?;
    Ok(file)
}

#[test]
fn a_single_file_is_checked_as_a_directory_is() -> miette::Result<()> {
    let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
    let file = single_file(sandbox.path(), "sd1", 3)?;
    let check = || -> miette::Result<Survey> {
        Ok(survey_file(&Checkpoint::open(&file)?, None, Depth::Weights)?.or_refusal()?)
    };
    assert!(check()?.notes.is_empty());
    edit_weights(&file, |tensors| {
        let zero = || Tensor::zeros(3, DType::F32, &Device::Cpu).expect("a tensor");
        tensors.insert("model_ema.decay".to_owned(), zero());
        tensors.insert("betas".to_owned(), zero());
        tensors.insert("first_stage_model.loss.logvar".to_owned(), zero());
    });
    // Without an autoencoder, a tensor of its own is unread.
    let notes = check();
    assert!(notes.is_err(), "the autoencoder is incomplete");
    edit_weights(&file, |tensors| drop(tensors.remove("first_stage_model.loss.logvar")));
    let notes = check()?.notes.join("\n");
    assert!(notes.contains("`model_ema` (1)") && !notes.contains("betas"), "{notes}");
    poison(&file, "cond_stage_model.transformer.text_model.encoder.layers.1");
    let error = check().expect_err("one is not finite").to_string();
    assert!(error.contains("model.safetensors") && error.contains("cond_stage_model"), "{error}");
    Ok(())
}

/// OpenCLIP-H has 24 layers, of which SD 2.x reads 23. Files of diffusers' own script have only those that are read.
#[test]
fn the_last_text_layer_of_sd_2_is_left_out_only_where_it_is_there() -> miette::Result<()> {
    let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
    let file = single_file(sandbox.path(), "sd2", 23)?;
    let layers = |file: &Path, to: &str| -> miette::Result<usize> {
        let to = sandbox.path().join(to);
        Checkpoint::open(file)?.save(&to, Some(laptop_diff::model::Prediction::Epsilon), None)?;
        let saved = ModelDirectory::open(&to)?;
        saved.text_encoder(Part::TextEncoder, DType::F32, &Device::Cpu)?;
        Ok(saved.text_config(Part::TextEncoder)?.num_hidden_layers)
    };
    let last = "cond_stage_model.model.transformer.resblocks.23.";
    let has_last =
        |file: &Path| Weights::open(file).map(|weights| weights.names().any(|name| name.starts_with(last)));
    assert!(has_last(&file).map_err(laptop_diff::model::ModelError::from)?, "other programs expect it");
    assert_eq!(layers(&file, "of-24")?, 23);
    edit_weights(&file, |tensors| tensors.retain(|name, _| !name.starts_with(last)));
    assert_eq!(layers(&file, "of-23")?, 23);
    // Such a file does not say what it predicts.
    let error =
        Checkpoint::open(&file)?.save(&sandbox.path().join("unsaid"), None, None).expect_err("it asks");
    let help = miette::Diagnostic::help(&error).expect("it says what to type").to_string();
    assert!(
        help.contains("`prediction`") && help.contains("v_prediction") && help.contains("epsilon"),
        "{help}"
    );
    assert!(!sandbox.path().join("unsaid").exists());
    Ok(())
}

/// Other programs need the shell of a transformer between two ResNets; it is padded with zeros, and reads back as removed.
#[test]
fn a_unet_without_the_transformer_in_the_middle_reads_back() -> miette::Result<()> {
    let families = small_unets::families();
    let (_, sdxl) = families.iter().find(|(name, _)| *name == "sdxl").expect("a family");
    for removed in [
        &["mid_block.attentions.0"][..],
        &["mid_block.attentions.0", "down_blocks.2.attentions.1", "up_blocks.0.attentions.0"],
    ] {
        let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
        let (folder, file) = (sandbox.path().join("folder"), sandbox.path().join("model.safetensors"));
        let mut config = sdxl.clone();
        config["removed_units"] = json!(removed);
        small_unets::save(&config, 1, &folder)?;
        let model = ModelDirectory::open(&folder)?;
        let format = Format::find("comfyui")?;
        ExportRequest { model: &model, format, dtype: None, allow_unrecognised: true, loras: &[] }
            .write(&file)?;
        let read = Checkpoint::open(&file)?;
        let units: Vec<UnitId> = read.unet_config().removed_units.iter().cloned().collect();
        assert!(units.contains(&UnitId::from("mid_block.attentions.0")), "{units:?}");
        // A shell that does something cannot be dropped.
        edit_weights(&file, |tensors| {
            let name = "model.diffusion_model.middle_block.1.proj_out.weight";
            let one = tensors[name].ones_like().expect("a tensor");
            tensors.insert(name.to_owned(), one);
        });
        let error = Checkpoint::open(&file).err().expect("it is refused").to_string();
        assert!(error.contains("middle_block.1.proj_out.weight"), "{error}");
    }
    Ok(())
}

#[test]
fn weights_that_are_not_finite_are_not_exported() -> miette::Result<()> {
    let (sandbox, model) = nano();
    poison(&weights(&model, "unet"), "conv_out");
    let output = sandbox.path().join("exported");
    let model = ModelDirectory::open(&model)?;
    let request = ExportRequest {
        model: &model,
        format: Format::find("diffusers")?,
        dtype: None,
        allow_unrecognised: false,
        loras: &[],
    };
    let error = request.write(&output).expect_err("nobody can use it").to_string();
    assert!(error.contains("conv_out") && error.contains("not finite"), "{error}");
    assert!(!output.exists());
    Ok(())
}

#[test]
fn a_folder_around_a_single_file_is_told_what_the_file_is() {
    let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
    let refused = || {
        let error = survey_directory(sandbox.path(), None, Depth::Headers).expect_err("it is no model");
        let help = miette::Diagnostic::help(&error).expect("advice").to_string();
        format!("{error}; {help}")
    };
    assert!(refused().contains("is not a model folder; expected a diffusers pipeline"), "{}", refused());
    let path = sandbox.path().join("pytorch_lora_weights.safetensors");
    let down = Tensor::zeros((2, 8), DType::F32, &Device::Cpu).expect("a small tensor");
    let name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight";
    candle_core::safetensors::save(&HashMap::from([(name, down)]), &path).expect("as above");
    let shown = refused();
    assert!(shown.contains("pytorch_lora_weights.safetensors is a LoRA; give the Stable"), "{shown}");
    assert!(shown.contains("`laptop-diff export --lora`"), "{shown}");
    fs::copy(&path, sandbox.path().join("second.safetensors")).expect("as above");
    assert!(refused().contains("is not a model folder; expected a diffusers pipeline"), "{}", refused());
}

#[test]
fn a_scorer_that_does_not_fit_is_refused_in_a_sentence() -> miette::Result<()> {
    let scorer = |change: &dyn Fn(&Path)| {
        let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
        for entry in fs::read_dir(root().join("examples/nano-sd/scorer")).expect("it is there") {
            let path = entry.expect("a file").path();
            fs::copy(&path, sandbox.path().join(path.file_name().expect("a name"))).expect("as above");
        }
        change(sandbox.path());
        ScorerFolders::one(sandbox.path()).load(DType::F32, &Device::Cpu).map(drop)
    };
    let set = |file: &'static str, key: &'static str, value: Value| {
        move |folder: &Path| edit(&folder.join(file), |config| config[key] = value.clone())
    };
    scorer(&|_| {})?;
    // Without preprocessing, that of CLIP for the tower's size.
    scorer(&|folder| fs::remove_file(folder.join("preprocessor_config.json")).expect("it is there"))?;
    for (change, words) in [
        (set("tokenizer_config.json", "model_max_length", json!(154)), &["154", "77"][..]),
        (set("preprocessor_config.json", "crop_size", json!(224)), &["224", "64"]),
        (set("preprocessor_config.json", "do_normalize", json!(false)), &["do_normalize"]),
        (set("config.json", "model_type", json!("siglip")), &["siglip", "clip"]),
    ] {
        let error = scorer(&change).expect_err("it is refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)) && error.lines().count() == 1, "{error}");
    }
    Ok(())
}
