//! Selections that fit a loader: they export without padding, and no cheaper one does. Small networks are compared with
//! trying every set.

use std::collections::{BTreeMap, BTreeSet};

use crate::small_unets::published;
use laptop_diff::backend::Random;
use laptop_diff::base::UnitId;
use laptop_diff::model::UNetConfig;
use laptop_diff::model::network::{Inventory, UnitKind};
use laptop_diff::model::unet::Mid;
use laptop_diff::prune::Format;
use laptop_diff::score::{Scores, UnitScores};
use laptop_diff::select::{ENCODERS, encoder};
use laptop_diff::select::{Fit, LAYOUTS, Layout, Method, SOLVERS, SelectError, Selection, SelectionRequest};
use rand::RngExt;
use serde_json::{Value, json};

/// Scores with random losses.
fn scores(config: &UNetConfig, seed: u64) -> Scores {
    scores_of(config, config.inventory(), seed)
}

fn scores_of(config: &UNetConfig, inventory: Inventory, seed: u64) -> Scores {
    let mut stream = Random::new(seed, "fit").stream("losses", 0);
    let unit = |unit: &laptop_diff::model::network::Unit| UnitScores {
        id: unit.id.clone(),
        kind: unit.kind,
        parameters: unit.parameters,
        macs: unit.macs,
        parent: unit.parent.clone(),
        scores: BTreeMap::from([("output-loss".to_owned(), stream.random_range(-3.0..3.0f64).exp())]),
    };
    Scores {
        format: 1,
        criteria: vec!["output-loss".into()],
        points: 1,
        unet_parameters: inventory.parameters(),
        unet: config.to_json(),
        units: inventory.units().iter().map(unit).collect(),
        ..Scores::default()
    }
}

fn make(scores: &Scores, method: Method, ratio: Option<f64>) -> Result<Selection, SelectError> {
    Selection::make(
        scores,
        &SelectionRequest::new("output-loss", method, ratio),
        &Random::new(1, "selection"),
    )
}

/// Networks of few units: depths above one, with and without SDXL's second text condition.
fn tiny() -> Vec<UNetConfig> {
    let base = json!({
        "sample_size": 8,
        "block_out_channels": [16, 32],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 12,
        "norm_num_groups": 4,
    });
    let with = |more: Value| {
        let mut keys = base.clone();
        keys.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        UNetConfig::parse(&keys.to_string()).expect("our own configuration")
    };
    let inner = json!({
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": 2,
    });
    let outer = json!({
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "transformer_layers_per_block": [2, 2],
    });
    vec![with(inner), with(outer)]
}

/// Every set of blocks, transformers and ResNets of the middle block, in normal form.
fn every_set(config: &UNetConfig) -> BTreeSet<BTreeSet<UnitId>> {
    let inventory = config.inventory();
    let leaf = |unit: &&laptop_diff::model::network::Unit| {
        let whole = unit.kind == UnitKind::Transformer
            && inventory.units().iter().any(|other| other.parent.as_ref() == Some(&unit.id));
        !whole && (unit.kind != UnitKind::Resnet || unit.id.as_str().starts_with("mid_block"))
    };
    let leaves: Vec<UnitId> = inventory.units().iter().filter(leaf).map(|unit| unit.id.clone()).collect();
    assert!(leaves.len() <= 12, "{leaves:?}");
    let sets = (0..1usize << leaves.len()).map(|bits| {
        let chosen = (0..leaves.len()).filter(|leaf| bits >> leaf & 1 == 1);
        let set = chosen.map(|leaf| leaves[leaf].clone()).collect();
        config.prune(&set).expect("its own units").removed_units
    });
    sets.collect()
}

#[test]
fn a_fitting_selection_is_the_best_of_those_that_need_no_padding() -> miette::Result<()> {
    for config in tiny() {
        for name in ["diffusers", "comfyui"] {
            let (fit, format) = (Fit::find(name)?, Format::find(name)?);
            let fitting: Vec<_> = every_set(&config)
                .into_iter()
                .filter(|set| {
                    let pruned = config.prune(set).expect("its own units");
                    format.assemble(&pruned).is_some_and(|assembly| assembly.padded().is_empty())
                })
                .collect();
            assert!(fitting.len() > 10, "{name}: {}", fitting.len());
            for seed in 0..4 {
                let scores = scores(&config, seed);
                let cost = |set: &BTreeSet<UnitId>| {
                    let loss = scores.additive(set, "output-loss").expect("scored");
                    (loss, scores.parameters(set))
                };
                for percent in [1, 5, 10, 15, 20, 25] {
                    let ratio = f64::from(percent) / 100.0;
                    let needed = (ratio * scores.unet_parameters as f64).ceil() as u64;
                    let best = fitting.iter().map(cost).filter(|(_, weight)| *weight >= needed);
                    let best = best.map(|(loss, _)| loss).min_by(f64::total_cmp);
                    let selection = make(&scores, Method::Fitting(fit), Some(ratio));
                    match (best, selection) {
                        (Some(best), Ok(selection)) => {
                            let off = (selection.predicted.objective - best).abs() / best;
                            assert!(
                                off < 1e-12,
                                "{name} {percent} %: {} is not {best}",
                                selection.predicted.objective
                            );
                            assert!(
                                fitting.contains(&selection.removed()),
                                "{name}: {:?} would be padded",
                                selection.removed
                            );
                        }
                        (
                            None,
                            Err(SelectError::RatioUnreachable { .. } | SelectError::NothingFits { .. }),
                        ) => {}
                        (best, selection) => panic!("{name} {percent} %: {best:?}, {selection:?}"),
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn what_fits_at_full_size_is_exported_without_padding() -> miette::Result<()> {
    for (teacher, fits, ratio) in [
        ("sdxl-base", "diffusers", 0.5),
        ("sdxl-base", "comfyui", 0.5),
        ("sdxl-base", "sdcpp", 0.4),
        ("sdxl-base", "ssd-1b", 0.0),
        ("sdxl-base", "vega", 0.0),
        ("sd-v1-5", "diffusers", 0.15),
        ("sd-v1-5", "comfyui", 0.2),
    ] {
        let config = published(teacher);
        let selection =
            make(&scores(&config, 7), Method::Fitting(Fit::find(fits)?), (ratio > 0.0).then_some(ratio))?;
        assert!(selection.ratio_reached >= ratio && selection.fits.as_deref() == Some(fits));
        let pruned = config.prune(&selection.removed())?;
        let formats = match fits {
            "ssd-1b" | "vega" => vec!["diffusers", "comfyui", "sdcpp"],
            one => vec![one],
        };
        for format in formats {
            let assembly = Format::find(format)?.assemble(&pruned).expect("it fits");
            assert!(assembly.padded().is_empty(), "{teacher} {fits} {format}: {:?}", assembly.padded());
        }
        if fits == "comfyui" && teacher == "sdxl-base" {
            assert!(ENCODERS.contains(&encoder(&pruned).as_slice()));
        }
        let least = selection.removed_parameters.min((ratio * selection.unet_parameters as f64) as u64);
        let baselines = selection.baselines.iter();
        assert!(baselines.clone().all(|one| one.removed_parameters >= least.max(1)), "{teacher} {fits}");
        if let Ok(layout) = Layout::find(fits) {
            assert_eq!(selection.ratio_asked, selection.ratio_reached);
            assert!(
                selection.baselines.iter().all(|one| one.removed_parameters >= selection.removed_parameters)
            );
            assert!(selection.predicted.bound > 0.0);
            let shape = layout.assemble(&config)?;
            assert_eq!(pruned.inventory().parameters(), shape.config().inventory().parameters(), "{fits}");
            assert_eq!(pruned.kept_depths(), shape.config().kept_depths(), "{fits}");
            assert_eq!((pruned.kept_mid_depth(), shape.config().mid), (None, Mid::Resnet));
        }
    }
    Ok(())
}

#[test]
fn layouts_are_selections_with_predicted_losses() -> miette::Result<()> {
    for one in LAYOUTS {
        let config = published(if one.name.starts_with("bk-sdm") { "sd-v1-5" } else { "sdxl-base" });
        let scores = scores(&config, 3);
        let selection = make(&scores, Method::Layout(one), None)?;
        let shape = one.assemble(&config)?;
        let left = config.inventory().parameters() - selection.removed_parameters;
        assert_eq!(
            (left, selection.layout.as_deref()),
            (shape.config().inventory().parameters(), Some(one.name))
        );
        assert_eq!(selection.dropped_layers()?.is_some(), !["ssd-1b", "vega"].contains(&one.name));
        if selection.dropped_layers()?.is_none() {
            assert_eq!(config.prune(&selection.removed())?.inventory().parameters(), left, "{}", one.name);
            // The exact optimum of the same shape costs no more than the hand's choice.
            let fitting = make(&scores, Method::Fitting(Fit::find(one.name)?), None)?;
            assert!(fitting.predicted.objective <= selection.predicted.objective);
        }
        assert!(!selection.baselines.is_empty());
    }
    Ok(())
}

#[test]
fn a_fit_that_is_impossible_says_why() -> miette::Result<()> {
    let sd15 = scores(&published("sd-v1-5"), 1);
    let fitting = |scores: &Scores, name, ratio| make(scores, Method::Fitting(Fit::find(name)?), Some(ratio));
    assert!(matches!(fitting(&sd15, "ssd-1b", 0.0), Err(SelectError::LayoutMisfit { .. })));
    assert!(matches!(fitting(&sd15, "sdcpp", 0.1), Err(SelectError::NothingFits { .. })));
    assert!(Fit::find("webui").is_err());
    let gone = BTreeSet::from(["mid_block.attentions.0".into()]);
    let pruned = scores(&published("sdxl-base").prune(&gone)?, 1);
    assert!(matches!(fitting(&pruned, "comfyui", 0.1), Err(SelectError::FitsPruned { .. })));
    for (name, granularity) in [("sdxl-base", "resnet,transformer"), ("sd-v1-5", "resnet,attn1,attn2,ff")] {
        let config = published(name);
        let granularity = granularity.parse().expect("kinds that go together");
        let other = scores_of(&config, config.inventory().at(granularity), 1);
        assert!(matches!(fitting(&other, "diffusers", 0.1), Err(SelectError::OtherUnits { .. })));
        let layout = Layout::find("ssd-1b").map(Method::Layout)?;
        assert!(matches!(make(&other, layout, None), Err(SelectError::OtherUnits { .. })), "{name}");
    }
    let old = Scores { unet: Value::Null, ..sd15.clone() };
    assert!(matches!(fitting(&old, "diffusers", 0.1), Err(SelectError::NoConfiguration { .. })));
    assert!(
        make(&old, Method::Solver(SOLVERS[0]), Some(0.1)).is_ok(),
        "a selection that needs no configuration is made"
    );
    Ok(())
}
