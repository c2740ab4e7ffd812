//! The U-Net against diffusers: predictions, stages, gradients, and states that walk together.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use laptop_diff::base::UnitId;
use laptop_diff::model::network::{UnitKind, WalkState};
use laptop_diff::model::unet::UNet;
use laptop_diff::nn::differentiate;

use super::golden::{Golden, UNETS, max_difference};

#[test]
fn predictions_and_stages_are_those_of_diffusers() -> Result<()> {
    for name in UNETS {
        let golden = Golden::open(name);
        let unet = golden.unet();
        let mut seen = vec!["sample".to_owned()];
        let prediction = unet.forward_with_taps(
            &golden.input("sample"),
            &golden.input("timestep"),
            &golden.conditioning(),
            &mut |path, features| {
                if golden.outputs().any(|(output, _)| output == path) {
                    golden.assert_close(path, features);
                    seen.push(path.to_owned());
                }
            },
        )?;
        golden.assert_close("sample", &prediction);
        assert_eq!(seen.len(), golden.outputs().count(), "{name}: {seen:?}");
    }
    Ok(())
}

#[test]
fn a_block_without_parts_leaves_what_it_leaves_where_they_add_zero() -> Result<()> {
    let golden = Golden::open("unet_sdxl");
    let blocks = |unet: &UNet| -> Result<BTreeMap<String, Tensor>> {
        let mut seen = BTreeMap::new();
        let (sample, timestep) = (golden.input("sample"), golden.input("timestep"));
        unet.forward_with_taps(&sample, &timestep, &golden.conditioning(), &mut |path, tokens| {
            if path.ends_with(".transformer_blocks.1") {
                seen.insert(path.to_owned(), tokens.clone());
            }
        })?;
        Ok(seen)
    };
    let unet = golden.unet();
    let parts: [BTreeSet<UnitId>; 2] = ["attn2", "ff"].map(|part| {
        let ids = unet.inventory().removable().iter().map(|unit| unit.id.clone());
        ids.filter(|id| id.as_str().ends_with(&format!(".transformer_blocks.1.{part}"))).collect()
    });
    for gone in &parts {
        let pruned = unet.prune(gone).expect("these are its units");
        let mut weights = golden.weights();
        for (name, tensor) in &mut weights {
            if gone.iter().any(|part| name.starts_with(part.as_str())) {
                *tensor = tensor.zeros_like()?;
            }
        }
        let zeroed =
            UNet::new(golden.unet_config(), VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu))?;
        let (found, expected) = (blocks(&pruned)?, blocks(&zeroed)?);
        assert_eq!((found.len(), expected.len()), (gone.len(), gone.len()));
        for (path, tokens) in &found {
            assert_eq!(max_difference(tokens, &expected[path]), 0.0, "{path} without {gone:?}");
        }
    }
    Ok(())
}

#[test]
fn every_tensor_of_every_configuration_is_asked_for_and_gets_a_gradient() -> Result<()> {
    for name in UNETS {
        let golden = Golden::open(name);
        let (unet, variables) = golden.trainable_unet()?;
        assert_eq!(unet.inventory().tensors().count(), variables.len(), "{name}");
        let parts = unet.inventory().removable().iter().filter(|unit| UnitKind::PARTS.contains(&unit.kind));
        let some = parts.step_by(2).map(|unit| unit.id.clone()).collect();
        for unet in [unet.prune(&some).expect("these are its units"), unet] {
            let asked: Vec<_> = unet.inventory().tensors().map(|entry| entry.name.clone()).collect();
            let (_, gradients) = differentiate(|| golden.predict(&unet).sqr()?.mean_all())?;
            for path in asked {
                let gradient =
                    gradients.get(&variables[&path]).unwrap_or_else(|| panic!("{name}: {path} has none"));
                let sum = gradient.abs()?.sum_all()?.to_scalar::<f32>()?;
                assert!(sum.is_finite() && sum > 0.0, "{name}: the gradient of {path} sums to {sum}");
            }
        }
    }
    Ok(())
}

#[test]
fn steps_have_one_path_each() {
    for name in UNETS {
        let unet = Golden::open(name).unet();
        let mut paths: Vec<_> =
            unet.steps().map(|step| step.expect("it is held").path().to_owned()).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), unet.steps().len(), "{name}");
    }
}

#[test]
fn no_state_is_larger_than_its_bound() -> Result<()> {
    for name in UNETS {
        let golden = Golden::open(name);
        let unet = golden.unet();
        let (samples, _, height, width) = golden.input("sample").dims4()?;
        let condition = unet.condition(&golden.input("timestep"), &golden.conditioning())?;
        let mut state = unet.begin(&golden.input("sample"))?;
        let mut most = 0;
        for step in unet.steps() {
            step?.advance(&mut state, &condition)?;
            let tensors = state.skips.iter().chain(&state.residual).chain([&state.hidden]);
            most = most.max(tensors.map(Tensor::elem_count).sum::<usize>() / samples);
        }
        let bound = unet.inventory().state_elements(height, width) as usize;
        assert!(most <= bound && bound < 2 * most, "{name}: {most} of {bound}");
    }
    Ok(())
}

/// A batch is computed row by row, so walking together changes rounding at most.
#[test]
fn states_that_walk_together_arrive_as_if_alone() -> Result<()> {
    let golden = Golden::open("unet_sdxl");
    let unet = golden.unet();
    let condition = unet.condition(&golden.input("timestep"), &golden.conditioning())?;
    let teacher = unet.begin(&golden.input("sample"))?;
    let mut alone = teacher.clone();
    let mut other = WalkState { hidden: (&teacher.hidden * 2.0)?, ..teacher.clone() };
    let mut states = [teacher, other.clone()];
    for step in unet.steps() {
        let step = step?;
        step.advance(&mut alone, &condition)?;
        step.advance(&mut other, &condition)?;
        let [one, two] = &mut states;
        step.advance_all(&mut [one, two], &step.share(&condition)?)?;
    }
    let [one, two] = &states;
    golden.assert_close("sample", &one.hidden);
    assert!(max_difference(&one.hidden, &alone.hidden) < 1e-5);
    assert!(max_difference(&two.hidden, &other.hidden) < 1e-5);
    assert!(max_difference(&one.hidden, &two.hidden) > 1e-2);
    assert!(one.residual.is_none() && one.skips.is_empty());
    Ok(())
}

#[test]
fn text_time_without_sizes_is_an_error() -> Result<()> {
    let golden = Golden::open("unet_sdxl");
    let mut conditioning = golden.conditioning();
    conditioning.time_ids = None;
    let timestep = Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu)?;
    let error = golden.unet().condition(&timestep, &conditioning).expect_err("sizes are missing").to_string();
    assert!(error.contains("time_ids"), "{error}");
    Ok(())
}
