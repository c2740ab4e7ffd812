//! Criteria of gradients, against finite differences of the loss in double precision.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{CPU, Model, alone, alone_by, mean, mean_square};
use super::task::{predict, truth};
use crate::small_unets::{configs, points, schedule};
use candle_core::{DType, Tensor, Var};
use candle_nn::VarBuilder;
use laptop_diff::backend::threads;
use laptop_diff::data::Calibration;
use laptop_diff::model::network::Unit;
use laptop_diff::model::unet::UNet;
use laptop_diff::nn::differentiate;
use laptop_diff::sample::NoiseSchedule;
use laptop_diff::score::with_parameters;
use serde_json::json;

/// The task loss of a U-Net in double precision, at points all of one weight.
fn task_loss(unet: &UNet, points: &Calibration, schedule: &NoiseSchedule) -> f64 {
    let truth = truth(points, schedule, false);
    mean(predict(unet, points).iter().zip(&truth).map(|(row, truth)| mean_square(row, &truth.target)))
}

/// The points in double precision.
fn doubles(points: &Calibration) -> Calibration {
    let widen = |tensor: &Tensor| tensor.to_dtype(DType::F64).expect("a conversion");
    Calibration {
        sample: widen(&points.sample),
        noise: widen(&points.noise),
        latents: points.latents.as_ref().map(widen),
        timestep: points.timestep.clone(),
        encoder_hidden_states: widen(&points.encoder_hidden_states),
        text_embeds: points.text_embeds.as_ref().map(widen),
        time_ids: points.time_ids.as_ref().map(widen),
    }
}

/// The weights as doubles that candle itself differentiates, and a U-Net over them.
fn in_variables(model: &Model) -> (BTreeMap<String, Var>, UNet) {
    let variables: BTreeMap<String, Var> = model
        .config
        .inventory()
        .tensors()
        .map(|entry| {
            let tensor = model.weights.tensor(&entry.name, DType::F64, &CPU).expect("it was saved");
            (entry.name.clone(), Var::from_tensor(&tensor).expect("a variable"))
        })
        .collect();
    let tensors = variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone()));
    let builder = VarBuilder::from_tensors(tensors.collect(), DType::F64, &CPU);
    let unet = UNet::new(model.config.clone(), builder).expect("the weights fit");
    (variables, unet)
}

/// Scaling a branch's weights by `a` changes the loss at `a = 1` by `sum w g`.
#[test]
fn taylor_is_the_slope_of_the_loss_as_a_branch_is_scaled() -> miette::Result<()> {
    for (name, config) in configs() {
        let model = Model::new(&config, 3)?;
        let points = points(&model.config, 3, 4).expect("points");
        let schedule = schedule("epsilon");
        let found = alone(&model.teacher(&points, &schedule), "taylor", 2)?;
        let points = doubles(&points);
        let largest = found.iter().copied().fold(0.0, f64::max);
        for (unit, found) in model.unet.units().iter().zip(found) {
            let branch: BTreeSet<_> =
                model.unet.inventory().tensors_of(unit).map(|entry| entry.name.as_str()).collect();
            let at = |scale: f64| {
                let scaled =
                    model.in_doubles(
                        |name, tensor| {
                            if branch.contains(name) { tensor * scale } else { Ok(tensor) }
                        },
                    );
                task_loss(&scaled, &points, &schedule)
            };
            let slope = (at(1.0 + 1e-4) - at(1.0 - 1e-4)) / 2e-4;
            // Thousands of products in f32 that partly cancel: relative to the largest of these sums.
            let bound = 1e-4 * slope.abs() + 1e-5 * largest;
            assert!((found - slope.abs()).abs() <= bound, "{name} {}: {found} or {slope}", unit.id);
        }
    }
    Ok(())
}

/// `sum |w g|` is the slope of the loss along `|w| sign g`, for each timestep by itself.
#[test]
fn diff_pruning_is_the_slope_along_the_signs_of_the_gradient() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(1);
    let model = Model::new(&config, 5)?;
    let mut points = points(&model.config, 5, 6).expect("points");
    points.timestep = Tensor::new(&[800i64, 20, 800, 400, 20], &CPU).expect("five timesteps");
    let schedule = schedule("epsilon");
    let teacher = model.teacher(&points, &schedule);
    let groups: [&[u32]; 3] = [&[1, 4], &[3], &[0, 2]];

    let (variables, unet) = in_variables(&model);
    let (mut losses, mut sums) = (Vec::new(), Vec::new());
    for group in groups {
        let points = doubles(&points.select(group).expect("some of the points"));
        let gradients = threads::run(|| {
            differentiate(|| {
                let drawn = unet.forward(&points.sample, &points.timestep, &points.conditioning())?;
                (drawn - &points.noise)?.sqr()?.mean_all()
            })
        });
        let (_, gradients) = gradients.expect("gradients");
        losses.push(task_loss(&model.in_doubles(|_, tensor| Ok(tensor)), &points, &schedule));
        let slope = |unit: &Unit| {
            let branch: BTreeSet<_> =
                model.unet.inventory().tensors_of(unit).map(|entry| entry.name.as_str()).collect();
            let at = |step: f64| {
                let moved = model.in_doubles(|name, tensor| {
                    let gradient = gradients.get(&variables[name]).filter(|_| branch.contains(name));
                    match gradient {
                        Some(gradient) => &tensor + ((tensor.abs()? * gradient.sign()?)? * step)?,
                        None => Ok(tensor),
                    }
                });
                task_loss(&moved, &points, &schedule)
            };
            (at(1e-5) - at(-1e-5)) / 2e-5
        };
        sums.push(model.unet.units().iter().map(slope).collect::<Vec<_>>());
    }
    let largest = losses.iter().copied().fold(0.0, f64::max);
    let middle = losses.iter().map(|loss| loss / largest).fold(1.0, f64::min);
    // A threshold below all losses, and one that the smallest falls under.
    for threshold in [0.5 * middle, middle * (1.0 + 1e-6)] {
        for batch in [1, 8] {
            let criterion = with_parameters("diff-pruning", json!({ "threshold": threshold }));
            let found = alone_by(&teacher, criterion.expect("a threshold"), batch)?;
            for (place, (found, unit)) in found.iter().zip(model.unet.units()).enumerate() {
                let kept = losses.iter().zip(&sums).filter(|(loss, _)| **loss > threshold * largest);
                let expected: f64 = kept.map(|(_, sums)| sums[place]).sum();
                assert!(expected > 0.0, "{}", unit.id);
                let off = (found - expected).abs();
                assert!(off <= 1e-4 * expected, "{} above {threshold}: {found} or {expected}", unit.id);
            }
        }
    }
    Ok(())
}
