//! The walk against separate forward passes, for every chunk size; resuming; every criterion.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::small_unets;
use crate::small_unets::{configs, fine_ids, granularities, points, weights};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use laptop_diff::backend::Random;
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Interrupt, Progress, UnitId};
use laptop_diff::data::Calibration;
use laptop_diff::model::files::weights::Weights;
use laptop_diff::model::network::Unit;
use laptop_diff::model::unet::{UNet, UNetConfig};
use laptop_diff::profile::Latency;
use laptop_diff::score::walk::{Observer, Variant, walk};
use laptop_diff::score::{
    CRITERIA, Limits, ScoreError, Scores, ScoringContext, Teacher, additivity, criterion, joint_losses,
    score, traverse,
};
use rand::seq::IndexedRandom;

/// Rounding of a prediction in f32, relative to its root mean square: some ten roundings of 2^-24 that
/// add up along a few dozen layers. Batches of another size may sum in another order.
const ROUNDING: f64 = 1e-6;

/// The U-Net of a configuration with random weights.
fn unet(config: &serde_json::Value, seed: u64) -> miette::Result<UNet> {
    let config = UNetConfig::parse(&config.to_string())?;
    let tensors = weights(&config, seed).expect("weights");
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    Ok(UNet::new(config, vb).expect("the weights fit"))
}

fn context<'a>(
    points: usize,
    variants: usize,
    checkpoint: &'a Path,
    interrupt: &'a Interrupt,
) -> ScoringContext<'a> {
    ScoringContext {
        limits: Limits { points, variants },
        weights: None,
        checkpoint,
        progress: &Silent,
        interrupt,
    }
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    let values: Vec<f32> = tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32 on the CPU");
    values.into_iter().map(f64::from).collect()
}

fn mean_product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / a.len() as f64
}

/// The reference: remove, run, subtract.
fn effect(unet: &UNet, points: &Calibration, set: &BTreeSet<UnitId>) -> Vec<f64> {
    let run = |unet: &UNet| {
        let prediction = unet.forward(&points.sample, &points.timestep, &points.conditioning());
        doubles(&prediction.expect("a forward pass"))
    };
    let pruned = unet.prune(set).expect("known units");
    run(&pruned).iter().zip(run(unet)).map(|(without, with)| without - with).collect()
}

/// A loss of root mean square `r`, from effects each wrong by `rounding`, is wrong by at most `2 r rounding + rounding^2`.
/// Where that is below 1e-5 of the loss, 1e-5 is the bound.
fn assert_agrees(found: f64, expected: f64, rounding: f64, what: &str) {
    let bound = (2.0 * expected.sqrt() * rounding + rounding * rounding).max(1e-5 * expected);
    assert!((found - expected).abs() <= bound, "{what}: {found} instead of {expected}, bound {bound}");
}

#[test]
fn the_walk_agrees_with_removing_and_running_whatever_the_chunks() -> miette::Result<()> {
    let interrupt = Interrupt::default();
    for (name, config) in configs() {
        let whole = unet(&config, 1)?;
        let points = points(whole.config(), 3, 2).expect("points");
        let alone = |id: UnitId| (id.clone(), effect(&whole, &points, &BTreeSet::from([id])));
        let effects: BTreeMap<_, _> = fine_ids(whole.config()).into_iter().map(alone).collect();
        let prediction =
            whole.forward(&points.sample, &points.timestep, &points.conditioning()).expect("a pass");
        let prediction = doubles(&prediction);
        let rounding = ROUNDING * mean_product(&prediction, &prediction).sqrt();
        for unet in granularities().into_iter().map(|granularity| whole.clone().at(granularity)) {
            let of_units: Vec<_> = unet.units().iter().map(|unit| &effects[&unit.id]).collect();
            // Every kind of chunk for the finest units, of which there are most; one kind for the others.
            let chunks = [(2, 5), (8, 64), (1, 1)];
            let chunks = if unet.units().len() == effects.len() { &chunks[..] } else { &chunks[..1] };
            for &(batch, variants) in chunks {
                let folder = tempfile::tempdir().expect("a folder");
                let found =
                    traverse(&unet, &points, None, &context(batch, variants, folder.path(), &interrupt))?;
                for (row, a) in of_units.iter().enumerate() {
                    let unit = &unet.units()[row].id;
                    let loss = mean_product(a, a);
                    assert!(loss > 0.0, "{name}: removing {unit} changes nothing");
                    let what = format!("{name} {unit} in batches of {batch} and chunks of {variants}");
                    assert_agrees(found.gram.at(row, row), loss, rounding, &what);
                    for (column, b) in of_units.iter().enumerate() {
                        let bound = (loss.sqrt() + mean_product(b, b).sqrt()) * rounding + 1e-5 * loss;
                        let off = (found.gram.at(row, column) - mean_product(a, b)).abs();
                        assert!(off <= bound, "{what}: Gram entry {column} is off by {off}, bound {bound}");
                        assert_eq!(found.gram.at(row, column), found.gram.at(column, row));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The losses of a walk's variants, summed over points.
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn finished(&mut self, variant: usize, difference: &Tensor) -> candle_core::Result<()> {
        self.0[variant] += difference.sqr()?.mean((1, 2, 3))?.sum_all()?.to_scalar::<f64>()?;
        Ok(())
    }
}

/// In f64 the walk and the reference differ only by rounding of 2^-53.
#[test]
fn in_double_precision_the_walk_agrees_to_nine_digits() -> miette::Result<()> {
    let interrupt = Interrupt::default();
    for (name, config) in configs() {
        let config = UNetConfig::parse(&config.to_string())?;
        let tensors = weights(&config, 1).expect("weights").into_iter();
        let tensors = tensors.map(|(name, tensor)| (name, tensor.to_dtype(DType::F64).expect("wider")));
        let vb = VarBuilder::from_tensors(tensors.collect(), DType::F64, &Device::Cpu);
        let unet = UNet::new(config, vb).expect("the weights fit");
        let points = points(unet.config(), 3, 2).expect("points");
        let run = |unet: &UNet| {
            unet.forward(&points.sample, &points.timestep, &points.conditioning()).expect("a pass")
        };
        let variants: Vec<_> = unet.inventory().removable().iter().map(Variant::without).collect();
        let mut losses = Losses(vec![0.0; variants.len()]);
        for batch in [0..2, 2..3] {
            let batch = points.batch(batch).expect("points");
            walk(&unet, &batch, &variants, 8, &interrupt, &mut losses)?;
        }
        let teacher = run(&unet);
        for (id, found) in fine_ids(unet.config()).into_iter().zip(losses.0) {
            let pruned = unet.prune(&BTreeSet::from([id.clone()]))?;
            let loss = run(&pruned).sub(&teacher).and_then(|d| d.sqr()?.mean_all()?.to_scalar::<f64>());
            let (loss, found) = (loss.expect("a number"), found / points.len() as f64);
            assert!((found - loss).abs() <= 1e-9 * loss, "{name} {id}: {found} instead of {loss}");
        }
    }
    Ok(())
}

/// A streamed U-Net computes the same as one held in memory.
#[test]
fn a_streamed_unet_is_the_held_one_to_the_bit() -> miette::Result<()> {
    let interrupt = Interrupt::default();
    for ((name, config), dtype) in configs().into_iter().zip([DType::F32, DType::F16].repeat(2)) {
        let folder = tempfile::tempdir().expect("a folder");
        small_unets::save(&config, 9, folder.path())?;
        let stored = Weights::open(folder.path())?;
        let config = UNetConfig::parse(&config.to_string())?;
        let points = points(&config, 3, 10).expect("points");
        let vb = || stored.builder(dtype, &Device::Cpu);
        let fine = || granularities().swap_remove(2);
        let held = UNet::new(config.clone(), vb()).expect("the weights fit").at(fine());
        let streamed = UNet::streamed(config, vb()).expect("the weights fit").at(fine());
        let run = |unet: &UNet| {
            doubles(&unet.forward(&points.sample, &points.timestep, &points.conditioning()).expect("a pass"))
        };
        assert_eq!(run(&streamed), run(&held), "{name}");
        for id in fine_ids(held.config()).into_iter().step_by(2) {
            let without = BTreeSet::from([id]);
            assert_eq!(run(&streamed.prune(&without)?), run(&held.prune(&without)?), "{name}: {without:?}");
        }
        let (random, schedule) = (Random::new(1, "scores"), small_unets::schedule("epsilon"));
        let [one, other] = [&held, &streamed].map(|unet| {
            let place = tempfile::tempdir().expect("a folder");
            let context = context(2, 5, place.path(), &interrupt);
            let draw = |unet: &UNet| Ok(small_unets::brightness(unet, &points));
            let teacher = small_unets::teacher(unet, &stored, &points, &schedule, &random);
            let teacher = Teacher { clip_score: Some(&draw), ..teacher };
            let mut scores = score(&teacher, &small_unets::criteria(), &context).expect("scores");
            let sets = additivity::measure(unet, &points, &scores, 5, &random, &context);
            scores.additivity = Some(sets.expect("joint losses"));
            scores
        });
        assert_eq!(one, other, "{name}");
    }
    Ok(())
}

#[test]
fn joint_losses_agree_with_removing_and_running() -> miette::Result<()> {
    let interrupt = Interrupt::default();
    for (name, config) in configs() {
        let unet = unet(&config, 3)?;
        let points = points(unet.config(), 3, 4).expect("points");
        let mut stream = Random::new(1, "sets").stream(name, 0);
        let mut some = |count| fine_ids(unet.config()).sample(&mut stream, count).cloned().collect();
        let mut sets: Vec<BTreeSet<UnitId>> = (0..12).map(|size| some(size * 2)).collect();
        sets.push(fine_ids(unet.config()).into_iter().collect());
        let prediction =
            unet.forward(&points.sample, &points.timestep, &points.conditioning()).expect("a pass");
        let prediction = doubles(&prediction);
        let rounding = ROUNDING * mean_product(&prediction, &prediction).sqrt();
        for (batch, variants) in [(8, 64), (2, 4)] {
            let folder = tempfile::tempdir().expect("a folder");
            let found =
                joint_losses(&unet, &points, &sets, &context(batch, variants, folder.path(), &interrupt))?;
            assert_eq!(found[0], 0.0, "removing nothing costs nothing");
            for (set, found) in sets.iter().zip(found) {
                let d = effect(&unet, &points, set);
                assert_agrees(found, mean_product(&d, &d), rounding, &format!("{name} without {set:?}"));
            }
        }
    }
    Ok(())
}

/// Asks for an interruption once this many points are done.
struct StopAt<'a>(u64, &'a Interrupt);

impl Progress for StopAt<'_> {
    fn length(&self, _total: u64, _unit: &'static str) {}
    fn position(&self, done: u64) {
        if done == self.0 {
            self.1.ask();
        }
    }
    fn note(&self, _text: &str) {}
}

#[test]
fn what_was_interrupted_goes_on_to_the_same_bits() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(1);
    let unet = unet(&config, 5)?;
    let points = points(unet.config(), 5, 6).expect("points");
    let calm = Interrupt::default();
    let whole = tempfile::tempdir().expect("a folder");
    let expected = traverse(&unet, &points, None, &context(2, 7, whole.path(), &calm))?;
    let folder = tempfile::tempdir().expect("a folder");
    for stop in [2, 4] {
        let interrupt = Interrupt::default();
        let progress = StopAt(stop, &interrupt);
        let context = ScoringContext { progress: &progress, ..context(2, 7, folder.path(), &interrupt) };
        assert!(matches!(traverse(&unet, &points, None, &context), Err(ScoreError::Interrupted(_))));
    }
    assert_eq!(traverse(&unet, &points, None, &context(2, 7, folder.path(), &calm))?, expected);
    Ok(())
}

#[test]
fn without_anything_to_remove_there_are_no_scores() -> miette::Result<()> {
    let (_, mut config) = configs().swap_remove(0);
    config["down_block_types"] = ["DownBlock2D"; 2].into();
    config["up_block_types"] = ["UpBlock2D"; 2].into();
    config["mid_block_type"] = serde_json::Value::Null;
    let folder = tempfile::tempdir().expect("a folder");
    small_unets::save(&config, 7, folder.path())?;
    let stored = Weights::open(folder.path())?;
    let granularity = serde_json::from_value(serde_json::json!(["transformer"])).expect("a granularity");
    let unet = unet(&config, 7)?.at(granularity);
    let points = points(unet.config(), 2, 8).expect("points");
    let (interrupt, random, schedule) =
        (Interrupt::default(), Random::new(1, "scores"), small_unets::schedule("epsilon"));
    let teacher = small_unets::teacher(&unet, &stored, &points, &schedule, &random);
    let found = score(&teacher, &small_unets::criteria(), &context(8, 64, folder.path(), &interrupt));
    assert!(matches!(found, Err(ScoreError::NoUnits)));
    Ok(())
}

#[test]
fn points_on_which_the_whole_unet_overflows_are_blamed_on_no_unit() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(0);
    let unet = unet(&config, 7)?;
    let mut points = points(unet.config(), 2, 8).expect("points");
    points.sample = (points.sample * f64::from(f32::MAX)).expect("a product");
    let folder = tempfile::tempdir().expect("a folder");
    let interrupt = Interrupt::default();
    let sets = [BTreeSet::from([unet.units()[0].id.clone()])];
    let found = joint_losses(&unet, &points, &sets, &context(8, 64, folder.path(), &interrupt));
    // It overflows with all its units too, so they are not to blame.
    assert!(matches!(found, Err(ScoreError::Prediction { point: 0, .. })), "{found:?}");
    small_unets::save(&config, 7, folder.path())?;
    let (stored, random) = (Weights::open(folder.path())?, Random::new(1, "scores"));
    let schedule = small_unets::schedule("epsilon");
    let teacher = small_unets::teacher(&unet, &stored, &points, &schedule, &random);
    let criteria = [criterion("output-loss").expect("it is in the table")];
    let found = score(&teacher, &criteria, &context(8, 64, folder.path(), &interrupt));
    assert!(matches!(found, Err(ScoreError::Prediction { point: 0, .. })), "{found:?}");
    Ok(())
}

#[test]
fn every_criterion_gives_every_unit_a_number_and_the_file_keeps_them() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(1);
    let folder = tempfile::tempdir().expect("a folder");
    small_unets::save(&config, 7, folder.path())?;
    let stored = Weights::open(folder.path())?;
    let unet = unet(&config, 7)?;
    let points = points(unet.config(), 2, 8).expect("points");
    let interrupt = Interrupt::default();
    let context = context(8, 64, folder.path(), &interrupt);
    let random = Random::new(1, "scores");
    let schedule = small_unets::schedule("epsilon");
    let draw = |unet: &UNet| Ok(small_unets::brightness(unet, &points));
    let teacher = small_unets::teacher(&unet, &stored, &points, &schedule, &random);
    let mut scores =
        score(&Teacher { clip_score: Some(&draw), ..teacher }, &small_unets::criteria(), &context)?;
    assert_eq!(scores.criteria.len(), CRITERIA.len());
    for unit in &scores.units {
        assert_eq!(unit.scores.len(), CRITERIA.len());
        let influence = unit.scores["block-influence"];
        assert!(influence > 0.0 && influence < 2.0, "{}: {influence}", unit.id);
        // Normal weights of deviation n^-0.5 have the mean absolute value 0.8 n^-0.5; here n lies between 12 and 432.
        let magnitude = unit.scores["magnitude"];
        assert!(magnitude > 0.02 && magnitude < 0.3, "{}: {magnitude}", unit.id);
    }
    let sets = additivity::measure(&unet, &points, &scores, 14, &random, &context)?;
    assert_eq!(sets.sets.len(), 14);
    let is_leaf = |unit: &&Unit| unet.units().iter().all(|other| other.parent.as_ref() != Some(&unit.id));
    let can_go: u64 = unet.units().iter().filter(is_leaf).map(|unit| unit.parameters).sum();
    for (place, set) in sets.sets.iter().enumerate() {
        let share = set.ratio * unet.parameters() as f64 / can_go as f64;
        assert!(share >= 0.1 + 0.1 * (place % 7) as f64 - 1e-9, "set {place} reaches {share}");
        assert!(set.joint > 0.0 && set.predicted["output-loss"] > 0.0 && set.predicted["gram"] >= 0.0);
    }
    scores.additivity = Some(sets);
    scores.save(folder.path()).expect("written");
    let read = Scores::open(folder.path()).expect("read");
    assert_eq!(read.gram, scores.gram);
    for (read, unit) in read.units.iter().zip(&scores.units) {
        assert_eq!((&read.id, read.kind, &read.parent), (&unit.id, unit.kind, &unit.parent));
        for (name, value) in &unit.scores {
            // serde_json reads decimals to within a unit in the last place.
            assert!((read.scores[name] - value).abs() <= f64::EPSILON * value.abs());
        }
    }
    assert_eq!(read.additivity.map(|found| found.sets.len()), Some(14));
    Ok(())
}

#[test]
fn a_units_time_is_that_of_its_steps() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(1);
    let unet = unet(&config, 9)?.at(granularities().swap_remove(2));
    let latency = Latency::measure(&unet, 2, 3, &Device::Cpu, &Silent, &Interrupt::default())?;
    let of = |units: &mut dyn Iterator<Item = &Unit>| -> f64 {
        units.map(|unit| latency.seconds(&unit.id).expect("every unit was timed")).sum()
    };
    let outermost = of(&mut unet.units().iter().filter(|unit| unit.parent.is_none()));
    assert!(outermost > 0.0 && outermost <= latency.total_seconds, "{outermost} of {latency:?}");
    for whole in unet.units() {
        let inside = of(&mut unet.units().iter().filter(|unit| unit.parent.as_ref() == Some(&whole.id)));
        assert!(inside <= of(&mut [whole].into_iter()), "{} takes less than what it holds", whole.id);
    }
    let folder = tempfile::tempdir().expect("a folder");
    latency.save(folder.path()).expect("written");
    let read = Latency::open(folder.path()).expect("read");
    assert!((read.total_seconds - latency.total_seconds).abs() < 1e-12);
    Ok(())
}
