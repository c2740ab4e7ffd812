//! Exports obey the rules of other programs, lose nothing, and single files read back.

use std::collections::BTreeSet;
use std::path::Path;

use crate::diffusers::{Diffusers, save_prediction};
use crate::small_unets;
use crate::small_unets::{configs, families, fine_ids, points, published, selection};
use candle_core::{DType, Device, Tensor};
use laptop_diff::backend::Random;
use laptop_diff::base::UnitId;
use laptop_diff::model::network::UnitKind;
use laptop_diff::model::unet::{Assembly, Mid, Origin};
use laptop_diff::model::{Checkpoint, ModelDirectory, Prediction, UNetConfig};
use laptop_diff::prune::{Container, ExportError, ExportRequest, FORMATS, Format, Remap, apply};
use laptop_diff::select::Layout;
use laptop_diff::select::{ENCODERS, encoder};
use rand::seq::IndexedRandom;
use serde_json::json;

/// A random share of the units, including parts of blocks; only of transformers, or of ResNets too.
fn some_units(config: &UNetConfig, share: f64, resnets: bool, seed: u64) -> BTreeSet<UnitId> {
    let units: Vec<_> =
        fine_ids(config).into_iter().filter(|id| resnets || !id.as_str().contains("resnets")).collect();
    let mut stream = Random::new(seed, "units").stream("some", 0);
    units.sample(&mut stream, (share * units.len() as f64) as usize).cloned().collect()
}

/// The parameters of the tensors of zeros.
fn padded_parameters(assembly: &Assembly) -> u64 {
    let tensors = assembly.tensors();
    let zeros = tensors.iter().filter(|(_, origin)| *origin == Origin::Zeros);
    zeros.map(|(entry, _)| entry.parameters()).sum()
}

/// Every format can contain every pruned network: each kept tensor comes from one of the same shape, used once.
#[test]
fn every_format_can_contain_every_pruned_network() -> miette::Result<()> {
    let small =
        configs().into_iter().map(|(name, keys)| (name, UNetConfig::parse(&keys.to_string()).expect("ours")));
    for (name, whole) in ["sd-v1-5", "sdxl-base"].map(|name| (name, published(name))).into_iter().chain(small)
    {
        for seed in 0..6 {
            let pruned = whole.prune(&some_units(&whole, 0.15 * seed as f64, true, seed))?;
            let kept: BTreeSet<String> =
                pruned.inventory().tensors().map(|entry| entry.name.clone()).collect();
            for format in FORMATS {
                let assembly = format.assemble(&pruned).expect("everything has a place");
                let origins = assembly.tensors();
                let taken: Vec<&String> = origins
                    .iter()
                    .filter_map(|(_, origin)| match origin {
                        Origin::Kept(name) => Some(name),
                        Origin::Zeros => None,
                    })
                    .collect();
                let once: BTreeSet<String> = taken.iter().map(|name| (*name).clone()).collect();
                assert_eq!((once.len(), &once), (taken.len(), &kept), "{name} {} {seed}", format.name);
                let written = assembly.config().inventory().parameters();
                assert_eq!(written - padded_parameters(&assembly), pruned.inventory().parameters());
            }
        }
    }
    Ok(())
}

#[test]
fn comfyui_gets_an_encoder_that_it_supports() -> miette::Result<()> {
    let whole = published("sdxl-base");
    let format = Format::find("comfyui").expect("it is there");
    for seed in 0..20 {
        let pruned = whole.prune(&some_units(&whole, 0.2 + 0.035 * seed as f64, false, seed))?;
        let assembly = format.assemble(&pruned).expect("everything has a place");
        let (written, found) = (encoder(assembly.config()), encoder(&pruned));
        let holds = |known: &&&[usize]| {
            known.len() == found.len() && known.iter().zip(&found).all(|(known, found)| known >= found)
        };
        let smallest = ENCODERS.iter().filter(holds).min_by_key(|known| known.iter().sum::<usize>());
        assert_eq!(Some(written.as_slice()), smallest.copied());
        // Decoder and middle are read from the file and need no padding, but for a shell between two ResNets and for
        // what lies inside of blocks.
        let part =
            |unit: &UnitId| UnitKind::PARTS.iter().any(|part| unit.as_str().ends_with(&format!(".{part}")));
        let padded = assembly.padded().iter().filter(|unit| !unit.as_str().starts_with("down_blocks"));
        let padded = padded.filter(|unit| !part(unit));
        assert!(
            padded.clone().all(|unit| unit.as_str() == "mid_block.attentions.0"),
            "{:?}",
            assembly.padded()
        );
        assert!(format.unrecognised(&pruned).is_none());
    }
    let small = UNetConfig::parse(&families()[0].1.to_string())?;
    assert!(format.unrecognised(&small).is_some_and(|reason| reason.contains("32 channels")));
    Ok(())
}

/// stable-diffusion.cpp supports exactly the depths of SDXL, SSD-1B and Vega.
#[test]
fn sdcpp_pads_to_a_shape_that_it_supports() -> miette::Result<()> {
    let whole = published("sdxl-base");
    let format = Format::find("sdcpp").expect("it is there");
    let shapes = ["ssd-1b", "vega"].map(|name| {
        let assembly = Layout::find(name).expect("a layout").assemble(&whole).expect("it is made for SDXL");
        (Layout::find(name).expect("a layout").removed(&whole).expect("as above"), assembly.config().clone())
    });
    for (removed, shape) in &shapes {
        let pruned = whole.prune(removed)?;
        let assembly = format.assemble(&pruned).expect("it has a place");
        assert!(assembly.padded().is_empty());
        assert_eq!(assembly.config(), shape);
        // One block less is padded back.
        let less = pruned.prune(&BTreeSet::from(["up_blocks.0.attentions.0.transformer_blocks.1".into()]))?;
        let assembly = format.assemble(&less).expect("it has a place");
        assert_eq!((assembly.padded().len(), assembly.config()), (1, shape));
    }
    // With a transformer in the middle block, only the whole shape contains it.
    let assembly =
        format.assemble(&whole.prune(&some_units(&whole, 0.0, false, 1))?).expect("it has a place");
    assert_eq!(assembly.config(), &whole);
    assert!(format.unrecognised(&published("bk-sdm-base")).is_some());
    Ok(())
}

#[test]
fn names_in_the_original_layout_are_numbered_without_gaps() -> miette::Result<()> {
    let names = |config: &UNetConfig| -> BTreeSet<String> {
        config.inventory().original_names().into_iter().map(|pair| pair.original).collect()
    };
    // Some well-known names of both families.
    let sd15 = names(&published("sd-v1-5"));
    for name in [
        "time_embed.0.weight",
        "input_blocks.0.0.weight",
        "input_blocks.3.0.op.bias",
        "input_blocks.4.0.skip_connection.weight",
        "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight",
        "middle_block.1.proj_out.weight",
        "middle_block.2.out_layers.3.weight",
        "output_blocks.2.1.conv.weight",
        "output_blocks.5.2.conv.weight",
        "output_blocks.11.1.transformer_blocks.0.norm1.bias",
        "out.2.bias",
    ] {
        assert!(sd15.contains(name), "{name}");
    }
    let sdxl = published("sdxl-base");
    let (whole, format) = (names(&sdxl), Format::find("comfyui").expect("it is there"));
    assert_eq!((sd15.len(), whole.len()), (686, 1680), "as many as the files of the families have");
    for name in [
        "label_emb.0.2.bias",
        "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj.weight",
        "output_blocks.2.2.conv.bias",
    ] {
        assert!(whole.contains(name), "{name}");
    }
    // If a level's last transformer is removed, the upsampler takes its number.
    let gone = BTreeSet::from([
        "up_blocks.0.attentions.2".into(),
        "up_blocks.0.attentions.0.transformer_blocks.3".into(),
    ]);
    let assembly = format.assemble(&sdxl.prune(&gone)?).expect("it has a place");
    let pruned = names(assembly.config());
    assert!(
        pruned.contains("output_blocks.2.1.conv.weight") && !pruned.contains("output_blocks.2.2.conv.weight")
    );
    assert!(pruned.contains("output_blocks.0.1.transformer_blocks.8.norm1.weight"));
    assert!(!pruned.contains("output_blocks.0.1.transformer_blocks.9.norm1.weight"));
    let remap = Remap::new(&sdxl, &assembly, Container::SingleFile);
    let original = |name: &str| remap.original.get(name).cloned().flatten();
    assert_eq!(original("output_blocks.2.2.conv").as_deref(), Some("output_blocks.2.1.conv"));
    let block = |index: usize| format!("output_blocks.0.1.transformer_blocks.{index}.attn1.to_q");
    assert_eq!(original(&block(4)), Some(block(3)));
    assert_eq!(remap.original.get(&block(3)), Some(&None), "the removed block's LoRA has no place");
    assert!(!remap.original.contains_key(&block(2)), "a layer that keeps its name is not listed");
    Ok(())
}

fn predict(unet: &laptop_diff::model::UNet, seed: u64) -> Tensor {
    let config = UNetConfig { sample_size: (16, 16), ..unet.config().clone() };
    let points = points(&config, 1, seed).expect("points");
    unet.forward(&points.sample, &points.timestep, &points.conditioning()).expect("a forward pass")
}

#[test]
fn exports_predict_the_same_and_single_files_are_recognised() -> miette::Result<()> {
    for (name, config) in families() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("model");
        small_unets::save(&config, 1, &at)?;
        let whole = UNetConfig::parse(&config.to_string())?;
        for (seed, share) in [(1, 0.0), (2, 0.3), (3, 0.7)] {
            let removed = whole.prune(&some_units(&whole, share, true, seed))?.removed_units;
            let mut keys = config.clone();
            keys["removed_units"] = json!(removed);
            std::fs::write(at.join("config.json"), keys.to_string()).expect("written");
            let model = ModelDirectory::open(&at)?;
            let expected = predict(&model.unet(DType::F32, &Device::Cpu)?, seed);
            for format in FORMATS {
                let path = folder.path().join(format!("{}-{seed}", format.name));
                let request = ExportRequest {
                    model: &model,
                    format,
                    dtype: None,
                    allow_unrecognised: true,
                    loras: &[],
                };
                let export = request.write(&path)?;
                assert!(export.relative_error < 1e-6, "{name} {}: {}", format.name, export.relative_error);
                assert_eq!(
                    export.padded.is_empty(),
                    export.written_parameters == export.parameters,
                    "{name}"
                );
                if format.name != "comfyui" {
                    continue;
                }
                let checkpoint = Checkpoint::open(&path)?;
                let again = checkpoint.unet(DType::F32, &Device::Cpu)?;
                assert_eq!(again.parameters(), export.written_parameters, "{name} {seed}");
                let off = predict(&again, seed).sub(&expected).expect("one shape").abs().expect("as before");
                let off = off.max_all().and_then(|off| off.to_scalar::<f32>()).expect("a number");
                assert!(off < 1e-5, "{name} {seed}: off by {off}");
            }
        }
        let model = ModelDirectory::open(&at)?;
        let half = Format::find("comfyui").expect("it is there");
        let request = ExportRequest {
            model: &model,
            format: half,
            dtype: Some(DType::F16),
            allow_unrecognised: true,
            loras: &[],
        };
        let export = request.write(&folder.path().join("half.safetensors"))?;
        assert!(export.relative_error > 1e-6 && export.relative_error < 1e-2, "{}", export.relative_error);
        // What overflows in half precision is refused, and nothing is left of it.
        let mut weights = small_unets::weights(&model.unet_config()?, 1).expect("weights");
        let bias = weights.get_mut("conv_out.bias").expect("every U-Net has it");
        *bias = (bias.ones_like().expect("ones") * 1e6).expect("large");
        let large_at = folder.path().join("large");
        std::fs::create_dir(&large_at).expect("a folder");
        std::fs::copy(at.join("config.json"), large_at.join("config.json")).expect("written");
        candle_core::safetensors::save(&weights, large_at.join("diffusion_pytorch_model.safetensors"))
            .expect("written");
        let large = ModelDirectory::open(&large_at)?;
        let overflow = folder.path().join("overflow.safetensors");
        let refused = ExportRequest { model: &large, ..request }
            .write(&overflow)
            .expect_err("1e6 is too large for f16");
        assert!(refused.to_string().contains("not finite") && !overflow.exists(), "{refused}");
        let strange = ExportRequest { allow_unrecognised: false, ..request }.write(&folder.path().join("no"));
        assert!(matches!(strange, Err(ExportError::Unrecognised { .. })));
        assert!(!folder.path().join("no").exists());
    }
    Ok(())
}

/// Stock loaders cannot build a block without one of its parts.
#[test]
fn parts_of_blocks_are_padded_only_for_stock_loaders() -> miette::Result<()> {
    let whole = published("sdxl-base");
    let block = "up_blocks.0.attentions.1.transformer_blocks";
    let [attn1, ff] = ["3.attn1", "5.ff"].map(|part| UnitId::from(format!("{block}.{part}")));
    let before = UnitId::from(format!("{block}.1"));
    let pruned = whole.prune(&BTreeSet::from([before, attn1.clone(), ff.clone()]))?;
    for format in FORMATS {
        let assembly = format.assemble(&pruned).expect("everything has a place");
        let padded = assembly.padded();
        match format.name {
            "diffusers-code" => assert!(padded.is_empty() && assembly.config() == &pruned),
            // One block fewer before them.
            "diffusers" | "comfyui" => {
                let moved = ["2.attn1", "4.ff"].map(|part| UnitId::from(format!("{block}.{part}")));
                assert_eq!(padded, &BTreeSet::from(moved), "{}", format.name);
                assert_eq!(padded_parameters(&assembly), 6_557_440 + 19_674_880);
                for tensor in
                    ["2.norm1.weight", "2.attn1.to_out.0.bias", "4.norm3.bias", "4.ff.net.0.proj.weight"]
                {
                    assert!(assembly.pads(&format!("{block}.{tensor}")), "{tensor}");
                }
                assert!(!assembly.pads(&format!("{block}.2.norm2.weight")));
            }
            _ => assert!(assembly.config() == &whole, "{}", format.name),
        }
    }
    Ok(())
}

#[test]
fn a_middle_without_transformer_is_one_resnet_or_none() -> miette::Result<()> {
    let whole = published("sdxl-base");
    let without = |units: &[&str]| whole.prune(&units.iter().map(|unit| UnitId::from(*unit)).collect());
    let diffusers = Format::find("diffusers").expect("it is there");
    let (attention, first, second) = ("mid_block.attentions.0", "mid_block.resnets.0", "mid_block.resnets.1");
    for (gone, mid, padded) in [
        (vec![attention, first], Mid::Resnet, 0),
        (vec![attention, second], Mid::Resnet, 0),
        (vec![attention, first, second], Mid::None, 0),
        // A shell and the ten blocks that the innermost level of the down path has.
        (vec![attention], Mid::CrossAttention { depth: 10 }, 11),
        (vec![first], Mid::CrossAttention { depth: 10 }, 1),
    ] {
        let assembly = diffusers.assemble(&without(&gone)?).expect("it has a place");
        assert_eq!((assembly.config().mid, assembly.padded().len()), (mid, padded), "{gone:?}");
    }
    Ok(())
}

/// A model that diffusers saved, without some of its units.
fn pruned_model(
    teacher_at: &Path,
    pruned_at: &Path,
    share: f64,
    seed: u64,
) -> miette::Result<ModelDirectory> {
    let teacher = ModelDirectory::open(teacher_at)?;
    let config = teacher.unet_config()?;
    apply(&teacher, &selection(&config, some_units(&config, share, true, seed)), pruned_at)?;
    ModelDirectory::open(pruned_at).map_err(Into::into)
}

#[test]
#[ignore = "needs diffusers: LAPTOP_DIFF_TEST_PYTHON names a python that has it"]
fn diffusers_loads_every_export_and_predicts_the_same() -> miette::Result<()> {
    let diffusers = Diffusers::new();
    for (family, seeds) in [("sd1", 0..3), ("sd2", 0..2), ("sdxl", 0..4)] {
        let folder = tempfile::tempdir().expect("a folder");
        let teacher_at = folder.path().join("teacher");
        diffusers.run(&[&"original", &teacher_at, &family]);
        for seed in seeds {
            let at = |name: &str| folder.path().join(format!("{name}-{seed}"));
            let model = pruned_model(&teacher_at, &at("pruned"), 0.2 * seed as f64, seed)?;
            let unet = model.unet(DType::F32, &Device::Cpu)?;
            let size = UNetConfig { sample_size: (16, 16), ..unet.config().clone() };
            let file = at("expected");
            save_prediction(&unet, &points(&size, 2, seed).expect("points"), &file).expect("written");
            for (format, command) in [("diffusers", "stock"), ("diffusers-code", "run")] {
                let path = at(format);
                ExportRequest {
                    model: &model,
                    format: Format::find(format)?,
                    dtype: None,
                    allow_unrecognised: false,
                    loras: &[],
                }
                .write(&path)?;
                diffusers.run(&[&command, &path, &file]);
            }
            let path = at("checkpoint").with_extension("safetensors");
            ExportRequest {
                model: &model,
                format: Format::find("comfyui")?,
                dtype: None,
                allow_unrecognised: true,
                loras: &[],
            }
            .write(&path)?;
            if seed == 0 {
                // diffusers' own reader of single files knows the whole shapes alone.
                diffusers.run(&[&"single", &path, &teacher_at, &file]);
                let again = at("again");
                Checkpoint::open(&path)?.save(
                    &again,
                    Some(Prediction::Epsilon),
                    Some(&teacher_at.join("tokenizer")),
                )?;
                diffusers.run(&[&"same", &again, &teacher_at]);
            }
        }
    }
    Ok(())
}
