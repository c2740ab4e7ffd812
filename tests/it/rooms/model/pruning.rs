//! Laws of removal, and the identities by which a removed unit can be written as zeros.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;
use laptop_diff::base::UnitId;
use laptop_diff::model::network::{Unit, UnitKind};
use laptop_diff::model::unet::UNet;
use proptest::prelude::*;

use super::golden::{Golden, UNETS, max_difference};

#[test]
fn removing_nothing_is_the_identity() {
    for name in UNETS {
        let golden = Golden::open(name);
        let unet = golden.unet();
        let same = unet.prune(&BTreeSet::new()).expect("nothing is removed");
        assert_eq!(max_difference(&golden.predict(&unet), &golden.predict(&same)), 0.0, "{name}");
        assert_eq!(unet.parameters(), same.parameters());
    }
}

#[test]
fn removing_everything_leaves_a_working_unet() -> Result<()> {
    for name in UNETS {
        let golden = Golden::open(name);
        let unet = golden.unet();
        let all: BTreeSet<_> = unet.units().iter().map(|unit| unit.id.clone()).collect();
        let bare = unet.prune(&all).expect("these are its units");
        assert!(bare.units().is_empty());
        assert!(golden.predict(&bare).sqr()?.sum_all()?.to_scalar::<f32>()?.is_finite());
        // Composites hold their blocks: counting each parameter once gives what is gone.
        let removed: u64 =
            unet.units().iter().filter(|unit| unit.parent.is_none()).map(|unit| unit.parameters).sum();
        assert_eq!(unet.parameters() - removed, bare.parameters(), "{name}");
        let macs: u64 = unet.units().iter().filter(|unit| unit.parent.is_none()).map(|unit| unit.macs).sum();
        let (height, width) = unet.config().sample_size;
        assert_eq!(unet.macs(height, width) - macs, bare.macs(height, width), "{name}");
    }
    Ok(())
}

#[test]
fn bypassing_is_removing_is_filling_with_zeros() -> Result<()> {
    for name in UNETS {
        let golden = Golden::open(name);
        let unet = golden.unet();
        for unit in unet.inventory().removable() {
            let pruned = unet.prune(&BTreeSet::from([unit.id.clone()])).expect("it is a unit");
            let removed = golden.predict(&pruned);
            assert_eq!(pruned.parameters() + unit.parameters, unet.parameters(), "{name}: {}", unit.id);
            assert_eq!(
                max_difference(&removed, &bypassed(&golden, &unet, unit)?),
                0.0,
                "{name}: {}",
                unit.id
            );
            // Zero weights leave exact zeros, which leave the residual as it is.
            let zeroed = golden.predict(&zero_filled(&golden, unit)?);
            assert_eq!(max_difference(&removed, &zeroed), 0.0, "{name}: {}", unit.id);
        }
    }
    Ok(())
}

/// The prediction with a walk around one unit.
fn bypassed(golden: &Golden, unet: &UNet, unit: &Unit) -> Result<candle_core::Tensor> {
    let condition = unet.condition(&golden.input("timestep"), &golden.conditioning())?;
    let mut state = unet.begin(&golden.input("sample"))?;
    for (index, step) in unet.steps().enumerate() {
        match index {
            _ if index == unit.steps.start => step?.bypass(&mut state)?,
            _ if unit.steps.contains(&index) => {}
            _ => step?.advance(&mut state, &condition)?,
        }
    }
    Ok(state.hidden)
}

/// The whole U-Net with those tensors zeroed that make a unit vanish (method, section 6).
fn zero_filled(golden: &Golden, unit: &Unit) -> Result<UNet> {
    let modules: &[&str] = match unit.kind {
        UnitKind::Resnet => &["conv2"],
        UnitKind::Block => &["attn1.to_out.0", "attn2.to_out.0", "ff.net.2"],
        UnitKind::Transformer => &["proj_out"],
        UnitKind::Attn1 | UnitKind::Attn2 => &["to_out.0"],
        UnitKind::Ff => &["net.2"],
    };
    let mut weights = golden.weights();
    for module in modules {
        for part in ["weight", "bias"] {
            let tensor = weights.get_mut(&format!("{}.{module}.{part}", unit.id)).expect("units have these");
            *tensor = tensor.zeros_like()?;
        }
    }
    UNet::new(golden.unet_config(), VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu))
}

#[test]
fn a_shell_goes_with_its_last_block() {
    let unet = Golden::open("unet_sdxl").unet();
    let shell = UnitId::from("mid_block.attentions.0");
    let blocks: BTreeSet<_> = unet
        .units()
        .iter()
        .filter(|unit| unit.parent.as_ref() == Some(&shell))
        .map(|unit| unit.id.clone())
        .collect();
    assert_eq!(blocks.len(), 3);
    let pruned = unet.prune(&blocks).expect("these are its units");
    assert_eq!(pruned.config().removed_units, BTreeSet::from([shell.clone()]));
    // One block left is one unit with its shell.
    let but_one = blocks.iter().skip(1).cloned().collect();
    let pruned = unet.prune(&but_one).expect("these are its units");
    let left: Vec<_> =
        pruned.units().iter().filter(|unit| unit.id.as_str().starts_with(shell.as_str())).collect();
    assert_eq!(left.len(), 1);
    assert_eq!((&left[0].id, left[0].kind), (&shell, UnitKind::Transformer));
}

#[test]
fn what_loses_all_that_it_holds_is_removed_whole() {
    for name in UNETS {
        let config = Golden::open(name).unet_config();
        let inventory = config.inventory();
        for whole in inventory.removable() {
            let inside = |unit: &&Unit| unit.parent.as_ref() == Some(&whole.id);
            let inside: BTreeSet<_> =
                inventory.removable().iter().filter(inside).map(|unit| unit.id.clone()).collect();
            let without = |ids: &BTreeSet<UnitId>| config.prune(ids).expect("its units").removed_units;
            let alone = BTreeSet::from([whole.id.clone()]);
            let both = inside.union(&alone).cloned().collect();
            assert_eq!(without(&both), alone, "{name}: what is inside is not named");
            if let Some(kept) = inside.first() {
                assert_eq!(without(&inside), alone, "{name}");
                let but_one = inside.iter().filter(|id| *id != kept).cloned().collect();
                assert_eq!(without(&but_one), but_one, "{name}");
            }
        }
    }
}

#[test]
fn a_block_with_one_part_is_one_unit() {
    let unet = Golden::open("unet_sdxl").unet();
    let shell = "mid_block.attentions.0";
    let part = |block: usize, part: &str| UnitId::from(format!("{shell}.transformer_blocks.{block}.{part}"));
    let gone = BTreeSet::from([part(0, "attn2"), part(0, "ff"), part(1, "ff")]);
    let pruned = unet.prune(&gone).expect("these are its units");
    let inside = pruned.inventory().removable().iter().filter(|unit| unit.id.as_str().starts_with(shell));
    let found: Vec<_> = inside.map(|unit| (unit.id.as_str().trim_start_matches(shell), unit.kind)).collect();
    assert_eq!(
        found,
        [
            ("", UnitKind::Transformer),
            (".transformer_blocks.0", UnitKind::Block),
            (".transformer_blocks.1", UnitKind::Block),
            (".transformer_blocks.1.attn1", UnitKind::Attn1),
            (".transformer_blocks.1.attn2", UnitKind::Attn2),
            (".transformer_blocks.2", UnitKind::Block),
            (".transformer_blocks.2.attn1", UnitKind::Attn1),
            (".transformer_blocks.2.attn2", UnitKind::Attn2),
            (".transformer_blocks.2.ff", UnitKind::Ff),
        ]
    );
    let last = pruned.prune(&BTreeSet::from([part(0, "attn1")])).expect("it is there");
    let block = UnitId::from(format!("{shell}.transformer_blocks.0"));
    assert_eq!(last.config().removed_units, BTreeSet::from([block, part(1, "ff")]));
}

#[test]
fn an_unknown_unit_is_named() {
    let unet = Golden::open("unet_sd15").unet();
    let unknown = BTreeSet::from([UnitId::from("down_blocks.9.resnets.0")]);
    let error = unet.prune(&unknown).expect_err("there is no such unit").to_string();
    assert!(error.contains("down_blocks.9.resnets.0"), "{error}");
}

proptest! {
    // Every case computes three small U-Nets.
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn removing_twice_is_removing_the_union(picks in proptest::collection::vec(0u8..16, 128)) {
        let golden = Golden::open("unet_sdxl");
        let unet = golden.unet().at("resnet,attn1,attn2,ff".parse().expect("kinds that go together"));
        // Few enough that some blocks lose some of their parts.
        let chosen = |bit: u8| -> BTreeSet<UnitId> {
            let units = unet.units().iter().zip(&picks);
            units.filter(|(_, pick)| **pick < 4 && *pick & bit != 0).map(|(unit, _)| unit.id.clone()).collect()
        };
        let (a, b) = (chosen(1), chosen(2));
        let twice = unet.prune(&a).and_then(|unet| unet.prune(&b)).expect("these are its units");
        let once = unet.prune(&a.union(&b).cloned().collect()).expect("these are its units");
        prop_assert_eq!(twice.config(), once.config());
        prop_assert_eq!(twice.units(), once.units());
        prop_assert_eq!(max_difference(&golden.predict(&twice), &golden.predict(&once)), 0.0);
        // A pruned U-Net is what its configuration and the remaining tensors build.
        let again = UNet::new(once.config().clone(), golden.builder()).expect("no tensor is missing");
        prop_assert_eq!(max_difference(&golden.predict(&again), &golden.predict(&once)), 0.0);
    }
}
