//! Configurations alone: parameters and units of published U-Nets, and values that we must refuse.

use std::collections::BTreeMap;

use laptop_diff::model::network::{Granularity, Inventory, UnitKind};
use laptop_diff::model::unet::{self, ConfigError, UNetConfig};
use laptop_diff::model::vae::VaeConfig;
use serde_json::{Map, Value};

use super::golden::{Golden, folder};

fn inventory(name: &str) -> Inventory {
    UNetConfig::read(&folder().join(format!("configs/{name}.json")))
        .expect("a published configuration")
        .inventory()
}

/// As diffusers counts them.
#[test]
fn published_unets_have_their_number_of_parameters() {
    for (name, parameters) in [
        ("sd-v1-5", 859_520_964),
        ("bk-sdm-base", 579_384_964),
        ("bk-sdm-small", 482_346_884),
        ("bk-sdm-tiny", 323_384_964),
        ("sdxl-base", 2_567_463_684),
        ("ssd-1b", 1_331_334_404),
        ("segmind-vega", 745_225_604),
        ("koala-1b", 1_161_184_324),
        ("koala-700m", 782_822_724),
    ] {
        assert_eq!(inventory(name).parameters(), parameters, "{name}");
    }
}

#[test]
fn published_unets_have_their_units() {
    for (name, resnets, plain, transformers, blocks) in
        [("sd-v1-5", 22, 8, 16, 0), ("sdxl-base", 17, 6, 11, 70)]
    {
        let inventory = inventory(name);
        let count = |kind| inventory.units().iter().filter(|unit| unit.kind == kind).count();
        assert_eq!(count(UnitKind::Resnet), resnets, "{name}");
        assert_eq!(count(UnitKind::Transformer), transformers, "{name}");
        assert_eq!(count(UnitKind::Block), blocks, "{name}");
        let without_shortcut = inventory
            .units()
            .iter()
            .filter(|unit| unit.kind == UnitKind::Resnet && !unit.has_shortcut)
            .count();
        assert_eq!(without_shortcut, plain, "{name}");
    }
    let sdxl = inventory("sdxl-base");
    let of_size =
        |size| sdxl.units().iter().filter(|u| u.kind == UnitKind::Block && u.parameters == size).count();
    assert_eq!((of_size(34_755_840), of_size(10_005_120)), (60, 10));
}

/// A block's norms are its parts'; a Transformer2D has its shell beside its blocks: one norm and two projections.
#[test]
fn published_unets_have_their_parts() {
    let fine: Granularity = "resnet,attn1,attn2,ff".parse().expect("kinds that go together");
    for (name, resnets, transformers, blocks, parts) in
        [("sd-v1-5", 22, 16, 0, 48), ("sdxl-base", 17, 11, 70, 210)]
    {
        let inventory = inventory(name).at(fine.clone());
        let count = |kinds: &[UnitKind]| inventory.units().iter().filter(|u| kinds.contains(&u.kind)).count();
        let counts =
            [&[UnitKind::Resnet][..], &[UnitKind::Transformer], &[UnitKind::Block], &UnitKind::PARTS];
        assert_eq!(counts.map(count), [resnets, transformers, blocks, parts], "{name}");
        for whole in inventory.units() {
            let inside = inventory.units().iter().filter(|unit| unit.parent.as_ref() == Some(&whole.id));
            let inside: u64 = inside.map(|unit| unit.parameters).sum();
            let shells = [320, 640, 1280].map(|channels| 2 * channels * (channels + 2));
            match whole.kind {
                UnitKind::Block => assert_eq!(whole.parameters, inside, "{name}: {}", whole.id),
                UnitKind::Transformer => {
                    assert!(shells.contains(&(whole.parameters - inside)), "{name}: {}", whole.id)
                }
                _ => assert_eq!(inside, 0),
            }
        }
    }
    let sdxl = inventory("sdxl-base").at(fine);
    for (kind, inner, outer) in [
        (UnitKind::Attn1, 6_557_440, 1_640_320),
        (UnitKind::Attn2, 8_523_520, 3_442_560),
        (UnitKind::Ff, 19_674_880, 4_922_240),
    ] {
        let of_size = |size| sdxl.units().iter().filter(|u| u.kind == kind && u.parameters == size).count();
        assert_eq!((of_size(inner), of_size(outer)), (60, 10), "{kind}");
    }
}

/// Composites are units where all that they hold may go, and nothing says that it lies in one that is none.
#[test]
fn a_granularity_has_its_units() {
    for (name, granularity, units, tops) in [
        ("sd-v1-5", "resnet,transformer", 38, 38),
        ("sd-v1-5", "resnet,attn1", 38, 38),
        ("sdxl-base", "resnet,block", 98, 28),
        ("sdxl-base", "resnet,transformer", 28, 28),
        ("sdxl-base", "resnet,attn1,attn2,ff", 308, 28),
        ("sdxl-base", "attn1", 70, 70),
        ("sdxl-base", "attn2,ff", 140, 140),
    ] {
        let inventory = inventory(name).at(granularity.parse().expect("kinds that go together"));
        let without_parent = inventory.units().iter().filter(|unit| unit.parent.is_none()).count();
        assert_eq!((inventory.units().len(), without_parent), (units, tops), "{name} {granularity}");
    }
}

/// What removing all of them leaves: with the transformers and plain ResNets alone, and with every unit.
#[test]
fn units_hold_most_parameters() {
    for (name, plain, all) in [("sd-v1-5", 0.507, 0.909), ("sdxl-base", 0.902, 0.983)] {
        let inventory = inventory(name);
        let share = |with_shortcuts: bool| {
            let units = inventory.units().iter().filter(|unit| unit.parent.is_none());
            let counted = units.filter(|unit| with_shortcuts || !unit.has_shortcut);
            counted.map(|unit| unit.parameters).sum::<u64>() as f64 / inventory.parameters() as f64
        };
        let (found_plain, found_all) = (share(false), share(true));
        assert!((found_plain - plain).abs() < 5e-4, "{name}: {found_plain}");
        assert!((found_all - all).abs() < 5e-4, "{name}: {found_all}");
    }
}

/// As torch counts them for diffusers.
#[test]
fn published_unets_have_their_number_of_multiply_accumulates() {
    let text = std::fs::read(folder().join("macs.json")).expect("the file is in git");
    let counts: BTreeMap<String, u64> = serde_json::from_slice(&text).expect("make.py wrote it");
    for (name, macs) in counts {
        let side = if name == "sd-v1-5" { 64 } else { 128 };
        assert_eq!(inventory(&name).macs(side, side), macs, "{name}");
    }
}

#[test]
fn the_inventory_is_what_diffusers_wrote() {
    for name in super::golden::UNETS {
        let golden = Golden::open(name);
        let mut weights = golden.weights();
        for entry in golden.unet_config().inventory().tensors() {
            let tensor =
                weights.remove(&entry.name).unwrap_or_else(|| panic!("{name}: {} is extra", entry.name));
            assert_eq!(tensor.dims(), entry.shape, "{name}: {}", entry.name);
        }
        assert!(weights.is_empty(), "{name}: {:?} are not asked for", weights.keys());
    }
}

/// A key of these classes is read, fixed to one value, or without effect.
#[test]
fn every_parameter_of_diffusers_classes_is_known() {
    let text = std::fs::read(folder().join("parameters.json")).expect("the file is in git");
    let classes: BTreeMap<String, Vec<String>> = serde_json::from_slice(&text).expect("make.py wrote it");
    assert_eq!(classes.len(), 3);
    for (class, parameters) in classes {
        let mut config: Map<String, Value> = parameters.into_iter().map(|name| (name, Value::Null)).collect();
        config.insert("_class_name".to_owned(), class.as_str().into());
        config.insert("of_tomorrow".to_owned(), true.into());
        let unknown = match class.as_str() {
            "UNet2DConditionModel" => unet::unknown_keys(&config).expect("it is JSON"),
            _ => VaeConfig::unknown_keys(&config).expect("it is JSON"),
        };
        assert_eq!(unknown, ["of_tomorrow"], "{class}");
    }
}

#[test]
fn unsupported_values_name_their_key() {
    for (key, value) in [
        ("act_fn", r#""gelu""#),
        ("class_embed_type", r#""timestep""#),
        ("only_cross_attention", "[false, true, false, false]"),
        ("encoder_hid_dim", "1024"),
        ("time_cond_proj_dim", "256"),
        ("addition_embed_type", r#""image""#),
        ("mid_block_type", r#""UNetMidBlock2DSimpleCrossAttn""#),
        ("down_block_types", r#"["AttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]"#),
    ] {
        let error = UNetConfig::parse(&format!("{{\"{key}\": {value}}}")).expect_err("it is not supported");
        assert!(
            matches!(error, ConfigError::Unsupported { key: found, .. } if found == key),
            "{key}: {error}"
        );
    }
}

#[test]
fn contradictions_name_their_key() {
    for (key, value) in [
        ("block_out_channels", "[]"),
        ("block_out_channels", "[320, 640, 1280, 99999999999]"),
        ("layers_per_block", "[1, 2]"),
        ("layers_per_block", "0"),
        ("norm_num_groups", "7"),
        ("attention_head_dim", "0"),
        ("sample_size", "[0, 0]"),
        ("transformer_layers_per_block", "[[1, 1], 1, 1, 1]"),
        ("addition_embed_type", r#""text_time""#),
    ] {
        let error = UNetConfig::parse(&format!("{{\"{key}\": {value}}}")).expect_err("it contradicts");
        assert!(matches!(error, ConfigError::Contradiction { .. }), "{key}: {error}");
    }
    let error = UNetConfig::parse(r#"{"removed_units": ["nothing"]}"#).expect_err("no such unit");
    assert!(matches!(&error, ConfigError::UnknownUnit { unit } if unit.as_str() == "nothing"), "{error}");
    assert!(matches!(UNetConfig::parse("[1]"), Err(ConfigError::Parse(_))));
}
