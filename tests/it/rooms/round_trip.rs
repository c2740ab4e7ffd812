//! Whatever is exported is read back: the same U-Net, tensor by tensor, for random plans of every family, granularity and
//! format.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{DType, Device};
use laptop_diff::backend::Random;
use laptop_diff::base::UnitId;
use laptop_diff::model::unet::{Assembly, Origin};
use laptop_diff::model::{Checkpoint, ModelDirectory, UNetConfig, Weights};
use laptop_diff::prune::{Container, ExportError, ExportRequest, FORMATS, Format};
use rand::RngExt;
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::small_unets::{self, granularities, relatives};

/// What our own reader makes of an export.
fn read_back(format: &Format, path: &Path) -> miette::Result<(UNetConfig, Weights)> {
    if format.container == Container::SingleFile {
        let checkpoint = Checkpoint::open(path)?;
        return Ok((checkpoint.unet_config().clone(), checkpoint.unet_weights()));
    }
    let directory = ModelDirectory::open(path)?;
    Ok((directory.unet_config()?, directory.unet_weights()?))
}

/// Every tensor that `assembly` took from the source is there with its bytes; all others are zeros.
fn check(assembly: &Assembly, source: &Weights, found: (UNetConfig, Weights), name: &str) {
    let (config, weights) = found;
    weights.check(config.inventory().tensors()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let origins: BTreeMap<String, Origin> =
        assembly.tensors().into_iter().map(|(entry, origin)| (entry.name, origin)).collect();
    let bytes = |weights: &Weights, tensor: &str| {
        let stored = weights.view(tensor).unwrap_or_else(|error| panic!("{name}: {error}"));
        (stored.shape().to_vec(), stored.data().to_vec())
    };
    let kept = origins.iter().filter_map(|(tensor, origin)| match origin {
        Origin::Kept(source) => Some((tensor, source)),
        Origin::Zeros => None,
    });
    let names: BTreeSet<String> = config.inventory().tensors().map(|entry| entry.name.clone()).collect();
    for (tensor, from) in kept {
        assert!(names.contains(tensor), "{name}: `{tensor}` is not read");
        assert!(bytes(&weights, tensor) == bytes(source, from), "{name}: `{tensor}` is not `{from}`");
    }
    for tensor in &names {
        match origins.get(tensor) {
            Some(Origin::Kept(_)) => {}
            Some(Origin::Zeros) => {
                assert!(
                    bytes(&weights, tensor).1.iter().all(|byte| *byte == 0),
                    "{name}: `{tensor}` is not zero"
                );
            }
            None => panic!("{name}: `{tensor}` was not written"),
        }
    }
}

fn pruned_at_random(whole: &UNetConfig, seed: u64) -> BTreeSet<UnitId> {
    let mut stream = Random::new(seed, "plans").stream("plan", 0);
    let granularities = granularities();
    let granularity = granularities.choose(&mut stream).expect("there are some").clone();
    let inventory = whole.inventory().at(granularity);
    let units: Vec<UnitId> = inventory.units().iter().map(|unit| unit.id.clone()).collect();
    let count = stream.random_range(0..=units.len());
    units.sample(&mut stream, count).cloned().collect()
}

#[test]
fn every_export_of_every_plan_is_read_back() -> miette::Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    for (index, (family, config)) in relatives().into_iter().enumerate() {
        let at = folder.path().join(format!("model-{index}"));
        small_unets::save(&config, 1, &at)?;
        let whole = UNetConfig::parse(&config.to_string())?;
        for seed in 0..4 {
            let removed = whole.prune(&pruned_at_random(&whole, 100 * index as u64 + seed))?.removed_units;
            let mut keys = config.clone();
            keys["removed_units"] = json!(removed);
            std::fs::write(at.join("config.json"), keys.to_string()).expect("written");
            let model = ModelDirectory::open(&at)?;
            let (pruned, source) = (model.unet_config()?, model.unet_weights()?);
            for format in FORMATS {
                let name = format!("{family} as {} without {removed:?}", format.name);
                let path = folder.path().join("export");
                let request = ExportRequest {
                    model: &model,
                    format,
                    dtype: None,
                    allow_unrecognised: true,
                    loras: &[],
                };
                match request.write(&path) {
                    Ok(_) => {}
                    Err(ExportError::NoTarget { .. }) => continue,
                    Err(error) => panic!("{name}: {error}"),
                }
                let assembly = format.assemble(&pruned).expect("it was written");
                let found = read_back(format, &path).unwrap_or_else(|error| panic!("{name}: {error}"));
                check(&assembly, &source, found, &name);
                drop(std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path)));
            }
        }
    }
    Ok(())
}

/// Without a transformer in the middle, ComfyUI's file has a shell of zeros there.
#[test]
fn an_sdxl_without_the_middle_transformer_is_read_back() -> miette::Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut config = small_unets::relative("sdxl");
    config["removed_units"] = json!(["mid_block.attentions.0"]);
    small_unets::save(&config, 1, &at("model"))?;
    let model = ModelDirectory::open(&at("model"))?;
    let format = Format::find("comfyui")?;
    let path = at("export.safetensors");
    ExportRequest { model: &model, format, dtype: None, allow_unrecognised: true, loras: &[] }
        .write(&path)?;
    let again = Checkpoint::open(&path)?.unet(DType::F32, &Device::Cpu)?;
    let assembly = format.assemble(&model.unet_config()?).expect("it was written");
    check(&assembly, &model.unet_weights()?, read_back(format, &path)?, "without the middle");
    assert!(again.parameters() <= assembly.config().inventory().parameters());
    Ok(())
}
