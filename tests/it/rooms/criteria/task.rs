//! Criteria of the output and of the task loss, against removing each unit and running what is left.

use std::collections::BTreeSet;

use super::model::{Model, alone, alone_by, context, mean, mean_square, rows, without};
use crate::small_unets::{configs, points, schedule};
use laptop_diff::base::Interrupt;
use laptop_diff::base::progress::Silent;
use laptop_diff::data::Calibration;
use laptop_diff::model::unet::UNet;
use laptop_diff::sample::NoiseSchedule;
use laptop_diff::score::{ScoringContext, Space, criterion, joint_losses, score, with_parameters};
use serde_json::json;

/// What is known of one point.
pub(super) struct Truth {
    alpha: f64,
    sigma: f64,
    /// What the U-Net should have said.
    pub(super) target: Vec<f64>,
}

impl Truth {
    /// Its min-SNR weight.
    fn min_snr(&self, velocity: bool) -> f64 {
        let ratio = (self.alpha / self.sigma).powi(2);
        ratio.min(5.0) / if velocity { ratio + 1.0 } else { ratio }
    }
}

pub(super) fn truth(points: &Calibration, schedule: &NoiseSchedule, velocity: bool) -> Vec<Truth> {
    let timesteps: Vec<i64> = points.timestep.to_vec1().expect("whole numbers");
    let (samples, noises) = (rows(&points.sample), rows(&points.noise));
    let one = |((t, sample), noise): ((i64, Vec<f64>), Vec<f64>)| {
        let signal = schedule.alphas_cumprod()[t as usize];
        let (alpha, sigma) = (signal.sqrt(), (1.0 - signal).sqrt());
        let velocity_of = |(x, noise): (&f64, &f64)| alpha * noise - sigma * (x - sigma * noise) / alpha;
        let target = match velocity {
            true => sample.iter().zip(&noise).map(velocity_of).collect(),
            false => noise,
        };
        Truth { alpha, sigma, target }
    };
    timesteps.into_iter().zip(samples).zip(noises).map(one).collect()
}

pub(super) fn predict(unet: &UNet, points: &Calibration) -> Vec<Vec<f64>> {
    rows(&unet.forward(&points.sample, &points.timestep, &points.conditioning()).expect("a pass"))
}

/// The clean latents that each prediction stands for.
fn clean_latents(
    predictions: &[Vec<f64>],
    points: &Calibration,
    truth: &[Truth],
    velocity: bool,
) -> Vec<Vec<f64>> {
    let clean = |x: f64, e: f64, &Truth { alpha, sigma, .. }: &Truth| {
        if velocity { alpha * x - sigma * e } else { (x - sigma * e) / alpha }
    };
    let samples = rows(&points.sample);
    let point = |at: usize| {
        let pairs = samples[at].iter().zip(&predictions[at]);
        pairs.map(|(x, e)| clean(*x, *e, &truth[at])).collect()
    };
    (0..truth.len()).map(point).collect()
}

#[test]
fn weighted_losses_and_task_losses_are_those_of_removing_and_running() -> miette::Result<()> {
    for (name, config) in configs() {
        let model = Model::new(&config, 1)?;
        let points = points(&model.config, 5, 2).expect("points");
        let with = predict(&model.unet, &points);
        // In f32 a prediction is off by some ten roundings of 2^-24, relative to its size.
        let rounding = 1e-6 * mean(with.iter().map(|row| mean_square(row, &vec![0.0; row.len()]))).sqrt();
        let all: Vec<_> =
            model.unet.units().iter().map(|unit| predict(&without(&model.unet, unit), &points)).collect();
        for (prediction_type, velocity, batch) in [("epsilon", false, 8), ("v_prediction", true, 2)] {
            let schedule = schedule(prediction_type);
            let truth = truth(&points, &schedule, velocity);
            let teacher = model.teacher(&points, &schedule);
            let changes = alone(&teacher, "delta-task-loss", batch)?;
            let balanced = alone(&teacher, "timestep-weighted", batch)?;
            let clean = with_parameters("timestep-weighted", json!({ "weighting": "clean-latents" }));
            let clean = alone_by(&teacher, clean.expect("a weighting"), batch)?;
            for ((place, unit), gone) in model.unet.units().iter().enumerate().zip(&all) {
                let what = format!("{name} {prediction_type} {}", unit.id);
                let loss = |predictions: &[Vec<f64>]| {
                    mean(predictions.iter().zip(&truth).map(|(row, truth)| mean_square(row, &truth.target)))
                };
                let change = (loss(gone) - loss(&with)).abs();
                let slack = 4.0 * rounding * loss(gone).max(loss(&with)).sqrt() + 1e-5 * change;
                assert!((changes[place] - change).abs() <= slack, "{what}: {} or {change}", changes[place]);

                let near = |found: f64, expected: f64| {
                    let bound = 2.0 * rounding * expected.sqrt() + rounding * rounding + 1e-5 * expected;
                    assert!((found - expected).abs() <= bound, "{what}: {found} or {expected}");
                };
                let losses: Vec<f64> = gone.iter().zip(&with).map(|(a, b)| mean_square(a, b)).collect();
                let weights: Vec<f64> = truth.iter().map(|one| one.min_snr(velocity)).collect();
                let sum: f64 = weights.iter().zip(&losses).map(|(weight, loss)| weight * loss).sum();
                near(balanced[place], sum / weights.iter().sum::<f64>());

                let latents =
                    |predictions: &[Vec<f64>]| clean_latents(predictions, &points, &truth, velocity);
                let apart: f64 =
                    latents(gone).iter().zip(&latents(&with)).map(|(a, b)| mean_square(a, b)).sum();
                let scale = |truth: &Truth| match velocity {
                    true => truth.sigma.powi(2),
                    false => (truth.sigma / truth.alpha).powi(2),
                };
                near(clean[place], apart / truth.iter().map(scale).sum::<f64>());
            }
        }
    }
    Ok(())
}

#[test]
fn losses_in_a_space_are_those_of_what_the_predictions_stand_for() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(0);
    let model = Model::new(&config, 1)?;
    let points = points(&model.config, 5, 2).expect("points");
    let with = predict(&model.unet, &points);
    let all: Vec<_> =
        model.unet.units().iter().map(|unit| predict(&without(&model.unet, unit), &points)).collect();
    for (prediction_type, velocity) in [("epsilon", false), ("v_prediction", true)] {
        let schedule = schedule(prediction_type);
        let truth = truth(&points, &schedule, velocity);
        let teacher = model.teacher(&points, &schedule);
        // What a prediction stands for in a space, by the clean latents that it stands for.
        let stands_for = |predictions: &[Vec<f64>], space: Space| -> Vec<Vec<f64>> {
            let clean = clean_latents(predictions, &points, &truth, velocity);
            let samples = rows(&points.sample);
            let point = |at: usize| {
                let Truth { alpha, sigma, .. } = truth[at];
                let one = |(x, x0): (&f64, &f64)| {
                    let noise = (x - alpha * x0) / sigma;
                    match space {
                        Space::Prediction => f64::NAN,
                        Space::Noise => noise,
                        Space::Velocity => alpha * noise - sigma * x0,
                        Space::CleanLatents => *x0,
                        Space::MinSnr => x0 * (alpha / sigma).powi(2).min(5.0).sqrt(),
                    }
                };
                samples[at].iter().zip(&clean[at]).map(one).collect()
            };
            match space {
                Space::Prediction => predictions.to_vec(),
                _ => (0..truth.len()).map(point).collect(),
            }
        };
        for space in Space::ALL {
            let weights = space.weights(&points, &schedule).expect("weights");
            let (folder, interrupt) = (tempfile::tempdir().expect("a folder"), Interrupt::default());
            let context =
                ScoringContext { weights: Some(&weights), ..context(2, folder.path(), &Silent, &interrupt) };
            let scores = score(&teacher, &[criterion("output-loss")?], &context)?;
            let sets: Vec<_> =
                model.unet.units().iter().map(|unit| BTreeSet::from([unit.id.clone()])).collect();
            let joint = joint_losses(&model.unet, &points, &sets, &context)?;
            let teachers = stands_for(&with, space);
            for ((gone, found), joint) in all.iter().zip(&scores.units).zip(joint) {
                let without = stands_for(gone, space);
                let expected = mean(without.iter().zip(&teachers).map(|(a, b)| mean_square(a, b)));
                for loss in [found.scores["output-loss"], joint] {
                    assert!(
                        (loss / expected - 1.0).abs() < 1e-3,
                        "{space}, {}: {loss} and {expected}",
                        found.id
                    );
                }
            }
        }
    }
    Ok(())
}
