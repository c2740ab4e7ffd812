//! A LoRA that is renamed for an export changes the export as it changed the model before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use laptop_diff::backend::Random;
use laptop_diff::model::files::weights;
use laptop_diff::model::{Checkpoint, ModelDirectory, UNet, UNetConfig, Weights};
use laptop_diff::prune::{Container, Export, ExportError, ExportRequest, FORMATS, Format, Lora, apply};
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::diffusers::{Diffusers, save_prediction};
use crate::small_unets::{self, fine_ids, points, relative, selection};

type Tensors = HashMap<String, Tensor>;

/// Rank and alpha of every layer.
const RANK: usize = 2;
const ALPHA: f64 = 1.0;

/// How a trainer spells a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spelling {
    Peft,
    Kohya,
    KohyaSgm,
}

use Spelling::{Kohya, KohyaSgm, Peft};

impl Spelling {
    /// The keys of a layer: down, up, alpha. `original` is its name in the original layout.
    fn keys(self, layer: &str, original: &str) -> [String; 3] {
        let ends = |stem: String, ends: [&str; 3]| ends.map(|end| format!("{stem}.{end}"));
        let kohya = ["lora_down.weight", "lora_up.weight", "alpha"];
        let joined = |name: &str| format!("lora_unet_{}", name.replace('.', "_"));
        match self {
            Peft => ends(format!("unet.{layer}"), ["lora_A.weight", "lora_B.weight", "alpha"]),
            Kohya => ends(joined(layer), kohya),
            KohyaSgm => ends(joined(original), kohya),
        }
    }
}

/// Each layer with a matrix or kernel: its names in diffusers and in the original layout.
fn layers(config: &UNetConfig) -> Vec<(String, String)> {
    let layer = |name: &str| name.strip_suffix(".weight").map(ToOwned::to_owned);
    let inventory = config.inventory();
    let wide: BTreeSet<&String> =
        inventory.tensors().filter(|entry| entry.shape.len() > 1).map(|entry| &entry.name).collect();
    let pairs = inventory.original_names().into_iter().filter(|pair| wide.contains(&pair.parts[0]));
    pairs.filter_map(|pair| Some((layer(&pair.parts[0])?, layer(&pair.original)?))).collect()
}

/// A LoRA of some of the layers, in a spelling.
fn random_lora(
    whole: &UNetConfig,
    weights: &Tensors,
    spelling: Spelling,
    seed: u64,
) -> candle_core::Result<Tensors> {
    let random = Random::new(seed, "lora");
    let mut stream = random.stream("layers", 0);
    let all = layers(whole);
    let mut lora = Tensors::new();
    for (layer, original) in all.sample(&mut stream, all.len() / 2) {
        // kohya's trainer has the original names there, and diffusers reads no others.
        if spelling == Kohya && layer.starts_with("add_embedding") {
            continue;
        }
        let shape = weights[&format!("{layer}.weight")].dims().to_vec();
        let (mut down, mut up) = (shape.clone(), vec![1; shape.len()]);
        (down[0], up[0], up[1]) = (RANK, shape[0], RANK);
        let scale = (shape[1..].iter().product::<usize>() as f64).powf(-0.5);
        let [down_key, up_key, alpha_key] = spelling.keys(layer, original);
        lora.insert(down_key, (random.normal(&format!("{layer}.down"), 0, &down, &Device::Cpu)? * scale)?);
        lora.insert(up_key, random.normal(&format!("{layer}.up"), 0, &up, &Device::Cpu)?);
        lora.insert(alpha_key, Tensor::new(ALPHA as f32, &Device::Cpu)?);
    }
    lora.insert(
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha".to_owned(),
        Tensor::new(3f32, &Device::Cpu)?,
    );
    Ok(lora)
}

/// W + alpha / r * up @ down for each weight that the LoRA has; `names` gives the layer's names. Returns how many it had.
fn fuse(
    weights: &mut Tensors,
    lora: &Tensors,
    spellings: &[Spelling],
    names: &BTreeMap<String, (String, String)>,
) -> candle_core::Result<usize> {
    let mut count = 0;
    for (name, weight) in weights.iter_mut() {
        let Some((layer, original)) = names.get(name) else { continue };
        for spelling in spellings {
            let [down, up, _] = spelling.keys(layer, original);
            let (Some(down), Some(up)) = (lora.get(&down), lora.get(&up)) else { continue };
            let change = up.flatten_from(1)?.matmul(&down.flatten_from(1)?)?.reshape(weight.shape())?;
            *weight = (&*weight + (change * (ALPHA / RANK as f64))?)?;
            count += 1;
            break;
        }
    }
    Ok(count)
}

fn read(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, &Device::Cpu).expect("a safetensors file")
}

fn predict(unet: &UNet) -> Tensor {
    let config = UNetConfig { sample_size: (8, 8), ..unet.config().clone() };
    let points = points(&config, 1, 5).expect("points");
    unet.forward(&points.sample, &points.timestep, &points.conditioning()).expect("a forward pass")
}

/// The largest difference between two predictions.
fn off(found: &Tensor, expected: &Tensor) -> f32 {
    let off = found.sub(expected).and_then(|off| off.abs()?.max_all()?.to_scalar::<f32>());
    off.expect("predictions of one shape")
}

/// `weight name -> names of its layer`, from the tensors of a U-Net.
fn names_of(
    config: &UNetConfig,
    stored: impl Fn(&str, &str) -> String,
) -> BTreeMap<String, (String, String)> {
    let pairs = layers(config).into_iter();
    pairs
        .map(|(layer, original)| (format!("{}.weight", stored(&layer, &original)), (layer, original)))
        .collect()
}

/// The export with its renamed LoRA fused in.
fn fused_export(
    export: &Export,
    format: &Format,
    lora: &Tensors,
    spelling: Spelling,
) -> miette::Result<UNet> {
    let used = if format.container == Container::SingleFile {
        let config = Checkpoint::open(&export.path)?.unet_config().clone();
        let mut weights = read(&export.path);
        let names = names_of(&config, |_, original| format!("model.diffusion_model.{original}"));
        let used = fuse(&mut weights, lora, &[spelling], &names).expect("tensors");
        candle_core::safetensors::save(&weights, &export.path).expect("written");
        used
    } else {
        let file = export.path.join("diffusion_pytorch_model.safetensors");
        let config = ModelDirectory::open(&export.path)?.unet_config()?;
        let whole = UNetConfig { removed_units: BTreeSet::new(), ..config };
        let mut weights = read(&file);
        let names = names_of(&whole, |layer, _| layer.to_owned());
        // diffusers' places of original names are fixed, so that blocks get diffusers' names; others keep theirs.
        let spellings = if spelling == KohyaSgm { vec![Kohya, KohyaSgm] } else { vec![spelling] };
        let used = fuse(&mut weights, lora, &spellings, &names).expect("tensors");
        candle_core::safetensors::save(&weights, &file).expect("written");
        used
    };
    assert_eq!(used, export.loras[0].layers, "every layer of the LoRA has a place");
    Ok(match format.container {
        Container::SingleFile => Checkpoint::open(&export.path)?.unet(DType::F32, &Device::Cpu)?,
        _ => ModelDirectory::open(&export.path)?.unet(DType::F32, &Device::Cpu)?,
    })
}

/// Every format, spelling and family.
#[test]
fn a_renamed_lora_changes_the_export_as_it_changed_the_model() -> miette::Result<()> {
    for (index, family) in ["sd1", "sd2", "sdxl"].into_iter().enumerate() {
        let config = relative(family);
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        small_unets::save(&config, 1, &at("model"))?;
        let whole = UNetConfig::parse(&config.to_string())?;
        let all = small_unets::weights(&whole, 1).expect("weights");
        let units = fine_ids(&whole);
        for spelling in [Peft, Kohya, KohyaSgm] {
            let seed = 10 * index as u64 + spelling as u64;
            let mut stream = Random::new(seed, "units").stream("some", 0);
            let removed = units.sample(&mut stream, units.len() / 3).cloned().collect();
            let mut keys = config.clone();
            keys["removed_units"] = json!(whole.prune(&removed)?.removed_units);
            std::fs::write(at("model/config.json"), keys.to_string()).expect("written");
            let model = ModelDirectory::open(&at("model"))?;
            let pruned = model.unet_config()?;

            let lora = random_lora(&whole, &all, spelling, seed).expect("tensors");
            let from = at("lora.safetensors");
            candle_core::safetensors::save(&lora, &from).expect("written");
            let kept: BTreeSet<String> =
                pruned.inventory().tensors().map(|entry| entry.name.clone()).collect();
            let mut student = all.clone();
            student.retain(|name, _| kept.contains(name));
            let before = predict(&model.unet(DType::F32, &Device::Cpu)?);
            let names = names_of(&whole, |layer, _| layer.to_owned());
            let layers = fuse(&mut student, &lora, &[spelling], &names).expect("tensors");
            candle_core::safetensors::save(&student, at("fused.safetensors")).expect("written");
            let fused = Weights::open(&at("fused.safetensors"))?;
            let expected = predict(&UNet::load(pruned.clone(), &fused, DType::F32, &Device::Cpu)?);
            assert!(off(&before, &expected) > 1e-2, "the LoRA does something");

            for format in FORMATS {
                let name = format!("{family} {} {spelling:?}", format.name);
                let loras = [Lora { from: &from, name: format!("{name}.safetensors") }];
                let request = ExportRequest {
                    model: &model,
                    format,
                    dtype: None,
                    allow_unrecognised: true,
                    loras: &loras,
                };
                let export = request.write(&at(&name))?;
                let (renamed, report) = (read(&export.loras[0].path), &export.loras[0]);
                assert_eq!(report.layers, layers, "{name}");
                assert_eq!(report.layers + report.pruned.len(), (lora.len() - 1) / 3, "{name}");
                assert_eq!(renamed.len(), 3 * layers + 1, "{name}");
                assert!(renamed.contains_key("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"), "{name}");
                let off = off(&predict(&fused_export(&export, format, &renamed, spelling)?), &expected);
                assert!(off < 1e-4, "{name}: off by {off}");
            }
        }
    }
    Ok(())
}

/// A small SDXL without the fourth block of a transformer, and what an export as `to` makes of a LoRA with these keys and
/// this metadata.
fn renamed(
    to: &str,
    keys: &[&str],
    metadata: &[(&str, &str)],
) -> Result<(Vec<String>, Weights), ExportError> {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let at = |name: &str| folder.join(name);
    let mut config = relative("sdxl");
    config["transformer_layers_per_block"] = json!([1, 7]);
    config["removed_units"] =
        json!(["up_blocks.0.attentions.0.transformer_blocks.3", "mid_block.attentions.0"]);
    small_unets::save(&config, 1, &at("model")).expect("a model");
    let tensors =
        keys.iter().map(|key| (*key, Tensor::zeros((2, 64), DType::F16, &Device::Cpu).expect("a tensor")));
    let metadata = metadata.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    weights::write_small(&at("lora.safetensors"), tensors, &metadata).expect("written");
    let model = ModelDirectory::open(&at("model"))?;
    let lora = Lora { from: &at("lora.safetensors"), name: "renamed.safetensors".to_owned() };
    let request = ExportRequest {
        model: &model,
        format: Format::find(to).expect("a format"),
        dtype: None,
        allow_unrecognised: true,
        loras: &[lora],
    };
    let written = request.write(&at("export.safetensors"));
    assert_eq!(at("export.safetensors").exists(), written.is_ok(), "a refused LoRA leaves nothing");
    let export = written?;
    let weights = Weights::open(&at("renamed.safetensors"))?;
    std::fs::remove_dir_all(&folder).expect("written here");
    Ok((export.loras[0].pruned.iter().cloned().collect(), weights))
}

#[test]
fn whatever_belongs_to_a_layer_goes_with_it() -> Result<(), ExportError> {
    let block = "up_blocks_0_attentions_0_transformer_blocks";
    let (pruned, found) = renamed(
        "diffusers",
        &[
            &format!("lora_unet_{block}_4_attn1_to_q.hada_w1_a"),
            &format!("lora_unet_{block}_4_attn1_to_q.dora_scale"),
            &format!("lora_unet_{block}_4_ff_net_0_proj.lokr_w2"),
            &format!("lora_unet_{block}_3_attn1_to_q.dora_scale"),
            "lora_unet_output_blocks_0_1_transformer_blocks_5_attn2_to_out_0.lora_up.weight",
            "unet.up_blocks.0.attentions.0.transformer_blocks.6.attn1.processor.to_q_lora.down.weight",
            "lora_unet_label_emb_0_0.alpha",
            "lora_unet_input_blocks_0_0.alpha",
            "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
            "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",
        ],
        &[],
    )?;
    assert_eq!(pruned, [format!("{block}_3_attn1_to_q")]);
    assert_eq!(
        found.names().collect::<Vec<_>>(),
        [
            "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
            "lora_unet_conv_in.alpha",
            "lora_unet_label_emb_0_0.alpha",
            &format!("lora_unet_{block}_3_attn1_to_q.dora_scale"),
            &format!("lora_unet_{block}_3_attn1_to_q.hada_w1_a"),
            &format!("lora_unet_{block}_3_ff_net_0_proj.lokr_w2"),
            &format!("lora_unet_{block}_4_attn2_to_out_0.lora_up.weight"),
            "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",
            "unet.up_blocks.0.attentions.0.transformer_blocks.5.attn1.processor.to_q_lora.down.weight",
        ]
    );
    assert_eq!(found.dtype("lora_unet_conv_in.alpha")?, DType::F16, "types stay");
    Ok(())
}

/// diffusers keeps peft's settings beside the tensors, with the names of layers in them.
#[test]
fn settings_of_peft_name_the_same_layers() -> Result<(), ExportError> {
    let block = "up_blocks.0.attentions.0.transformer_blocks";
    let settings = json!({
        "unet.r": 4,
        "unet.target_modules": ["to_k", format!("{block}.3.attn1.to_q"), format!("{block}.4.attn1.to_q")],
        "unet.alpha_pattern": { format!("{block}.4.attn1.to_q"): 2, format!("{block}.3.attn1.to_q"): 3 },
    });
    let key = format!("unet.{block}.4.attn1.to_q.lora_A.weight");
    let text = settings.to_string();
    let metadata = [("format", "pt"), ("lora_adapter_metadata", text.as_str()), ("ss_network_dim", "4")];
    let (_, found) = renamed("diffusers", &[&key], &metadata)?;
    let found = found.metadata();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["format", "lora_adapter_metadata", "ss_network_dim"]);
    let settings: serde_json::Value = serde_json::from_str(&found["lora_adapter_metadata"]).expect("JSON");
    assert_eq!(settings["unet.target_modules"], json!(["to_k", format!("{block}.3.attn1.to_q")]));
    assert_eq!(settings["unet.alpha_pattern"], json!({ format!("{block}.3.attn1.to_q"): 2 }));
    assert_eq!(settings["unet.r"], 4);
    Ok(())
}

#[test]
fn a_lora_that_does_not_fit_is_refused_before_anything_is_written() {
    let layer = "lora_unet_up_blocks_0_attentions_0_transformer_blocks_4_attn1_to_q";
    let refused =
        |keys: &[&str]| renamed("comfyui", keys, &[]).map(drop).expect_err("it does not fit").to_string();
    let unknown = refused(&["lora_unet_up_blocks_7_attentions_0_proj_in.alpha"]);
    assert!(unknown.contains("`lora_unet_up_blocks_7_attentions_0_proj_in.alpha`"), "{unknown}");
    assert!(refused(&["unet.up_blocks.0.attentions.0.gate.lora_A.weight"]).contains("names no layer"));
    assert!(refused(&["double_blocks.0.img_attn.qkv.lora_A.weight"]).contains("names no layer"));
    // The text has 8 channels.
    let wide =
        refused(&["lora_unet_up_blocks_0_attentions_0_transformer_blocks_4_attn2_to_k.lora_down.weight"]);
    assert!(wide.contains("reads 64 channels, but its layer has 8"), "{wide}");
    // Both become the diffusers name in a folder.
    let twice =
        [&format!("{layer}.alpha"), "lora_unet_output_blocks_0_1_transformer_blocks_4_attn1_to_q.alpha"];
    let error = renamed("diffusers", &twice, &[]).map(drop).expect_err("one layer twice");
    assert!(matches!(error, ExportError::LoraTwice { .. }), "{error}");
}

#[test]
#[ignore = "needs diffusers: LAPTOP_DIFF_TEST_PYTHON names a python that has it"]
fn diffusers_reads_a_renamed_lora() -> miette::Result<()> {
    let diffusers = Diffusers::new();
    for (family, spellings) in [("sd1", vec![Peft, Kohya]), ("sdxl", vec![Peft, Kohya, KohyaSgm])] {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        diffusers.run(&[&"original", &at("teacher"), &family]);
        let teacher = ModelDirectory::open(&at("teacher"))?;
        let whole = teacher.unet_config()?;
        let all = read(&at("teacher/unet/diffusion_pytorch_model.safetensors"));
        let units = fine_ids(&whole);
        for spelling in spellings {
            let at = |name: &str| at(&format!("{spelling:?}-{name}"));
            let mut stream = Random::new(spelling as u64, "units").stream("some", 0);
            let removed = units.sample(&mut stream, units.len() / 3).cloned().collect();
            apply(&teacher, &selection(&whole, removed), &at("student"))?;
            let model = ModelDirectory::open(&at("student"))?;
            let pruned = model.unet_config()?;
            let mut lora = random_lora(&whole, &all, spelling, 1).expect("tensors");
            // diffusers takes no layer that has only an alpha.
            lora.remove("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha");
            candle_core::safetensors::save(&lora, at("lora.safetensors")).expect("written");
            let mut student = read(&at("student").join("unet/diffusion_pytorch_model.safetensors"));
            let names = names_of(&whole, |layer, _| layer.to_owned());
            fuse(&mut student, &lora, &[spelling], &names).expect("tensors");
            candle_core::safetensors::save(&student, at("fused.safetensors")).expect("written");
            let fused = Weights::open(&at("fused.safetensors"))?;
            let unet = UNet::load(pruned.clone(), &fused, DType::F32, &Device::Cpu)?;
            let size = UNetConfig { sample_size: (16, 16), ..pruned };
            save_prediction(&unet, &points(&size, 2, 3).expect("points"), &at("expected")).expect("written");
            for to in ["diffusers", "diffusers-code"] {
                let loras =
                    [Lora { from: &at("lora.safetensors"), name: format!("{spelling:?}-{to}.safetensors") }];
                let format = Format::find(to).expect("a format");
                ExportRequest {
                    model: &model,
                    format,
                    dtype: None,
                    allow_unrecognised: false,
                    loras: &loras,
                }
                .write(&at(to))?;
                diffusers.run(&[&"lora", &at(to), &at(&format!("{to}.safetensors")), &at("expected")]);
            }
        }
    }
    Ok(())
}
