//! Pruned directories, read by this program and by the real diffusers.

use std::collections::BTreeSet;
use std::path::Path;

use crate::diffusers::{Diffusers, save_prediction};
use crate::small_unets;
use crate::small_unets::{configs, points, selection};
use candle_core::{DType, Device, Tensor};
use laptop_diff::backend::Random;
use laptop_diff::base::UnitId;
use laptop_diff::data::Calibration;
use laptop_diff::model::ModelDirectory;
use laptop_diff::model::network::UnitKind;
use laptop_diff::model::unet::UNet;
use laptop_diff::prune::{ApplyError, apply};
use rand::seq::IndexedRandom;

fn open(folder: &Path) -> miette::Result<(ModelDirectory, UNet)> {
    let model = ModelDirectory::open(folder)?;
    let unet = model.unet(DType::F32, &Device::Cpu)?;
    Ok((model, unet))
}

fn predict(unet: &UNet, points: &Calibration) -> Tensor {
    unet.forward(&points.sample, &points.timestep, &points.conditioning()).expect("a forward pass")
}

/// A random third of the units, or of the parts of blocks only; usually of every kind, and some Transformer2D with all of its
/// blocks.
fn some_units(unet: &UNet, parts_alone: bool, seed: u64) -> BTreeSet<UnitId> {
    let mut stream = Random::new(seed, "units").stream("some", 0);
    let mut units = unet.inventory().removable().to_vec();
    units.retain(|unit| !parts_alone || UnitKind::PARTS.contains(&unit.kind));
    units.sample(&mut stream, units.len() / 3).map(|unit| unit.id.clone()).collect()
}

#[test]
fn a_pruned_folder_reads_as_the_pruned_network() -> miette::Result<()> {
    for ((name, config), parts_alone) in
        configs().into_iter().flat_map(|one| [(one.clone(), false), (one, true)])
    {
        let folder = tempfile::tempdir().expect("a folder");
        let (teacher_at, pruned_at) = (folder.path().join("teacher"), folder.path().join("pruned"));
        small_unets::save(&config, 1, &teacher_at)?;
        let (model, teacher) = open(&teacher_at)?;
        let removed = some_units(&teacher, parts_alone, 2);
        apply(&model, &selection(teacher.config(), removed.clone()), &pruned_at)?;
        let (_, pruned) = open(&pruned_at)?;
        let expected = teacher.prune(&removed)?;
        assert_eq!(pruned.config(), expected.config(), "{name}");
        assert!(pruned.parameters() < teacher.parameters());
        let points = points(teacher.config(), 2, 3).expect("points");
        let off = predict(&pruned, &points).sub(&predict(&expected, &points)).expect("one shape");
        let off: f32 = off.abs().and_then(|off| off.max_all()?.to_scalar()).expect("a number");
        assert_eq!(off, 0.0, "{name}: the same weights give the same bits");
        let file = std::fs::metadata(pruned_at.join("diffusion_pytorch_model.safetensors")).expect("written");
        let header = 120 * pruned.config().inventory().tensors().count() as u64;
        assert!(file.len() < 4 * pruned.parameters() + header, "removed tensors are not in the file");
    }
    Ok(())
}

#[test]
fn other_parts_are_linked_and_single_file_checkpoints_are_not() -> miette::Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let (teacher_at, pruned_at) = (folder.path().join("teacher"), folder.path().join("pruned"));
    let (_, config) = configs().swap_remove(0);
    small_unets::save(&config, 1, &teacher_at.join("unet"))?;
    let index =
        r#"{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}"#;
    for (file, text) in [
        ("model_index.json", index),
        ("vae/config.json", "{}"),
        ("text_encoder/deep/er.txt", "deep"),
        (".git/HEAD", "ref"),
        ("everything.safetensors", "large"),
        ("LICENSE.md", "openrail"),
    ] {
        let path = teacher_at.join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }
    let (model, teacher) = open(&teacher_at)?;
    let removed = BTreeSet::from(["mid_block.attentions.0".into()]);
    apply(&model, &selection(teacher.config(), removed), &pruned_at)?;
    for file in
        ["vae/config.json", "text_encoder/deep/er.txt", "LICENSE.md", "selection.json", "unet/pruned_unet.py"]
    {
        assert!(pruned_at.join(file).is_file(), "{file} is missing");
    }
    for file in [".git", "everything.safetensors", "unet/selection.json"] {
        assert!(!pruned_at.join(file).exists(), "{file} came along");
    }
    let index = std::fs::read_to_string(pruned_at.join("model_index.json")).expect("written");
    assert!(index.contains("pruned_unet") && index.contains("StableDiffusionPipeline"));

    // A pruned model can be pruned again, and its selection must name its own units.
    let (model, student) = open(&pruned_at)?;
    let more = BTreeSet::from(["down_blocks.0.resnets.1".into()]);
    let twice_at = folder.path().join("twice");
    apply(&model, &selection(student.config(), more), &twice_at)?;
    assert_eq!(open(&twice_at)?.1.config().removed_units.len(), 2);
    let wrong = selection(student.config(), BTreeSet::from(["down_blocks.9.resnets.0".into()]));
    assert!(matches!(apply(&model, &wrong, &folder.path().join("wrong")), Err(ApplyError::Units(_))));
    Ok(())
}

#[test]
#[ignore = "needs diffusers: LAPTOP_DIFF_TEST_PYTHON names a python that has it"]
fn diffusers_loads_a_pruned_folder_and_predicts_the_same() -> miette::Result<()> {
    let diffusers = Diffusers::new();
    for (family, parts_alone) in [("sd15", false), ("sd15", true), ("sdxl", false), ("sdxl", true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let (teacher_at, pruned_at) = (folder.path().join("teacher"), folder.path().join("pruned"));
        diffusers.run(&[&"make", &teacher_at, &family]);
        let (model, teacher) = open(&teacher_at)?;
        apply(&model, &selection(teacher.config(), some_units(&teacher, parts_alone, 4)), &pruned_at)?;
        let (_, pruned) = open(&pruned_at)?;
        let points = points(pruned.config(), 2, 5).expect("points");
        let file = folder.path().join("expected.safetensors");
        save_prediction(&pruned, &points, &file).expect("written");
        diffusers.run(&[&"run", &pruned_at, &file]);
    }
    Ok(())
}
