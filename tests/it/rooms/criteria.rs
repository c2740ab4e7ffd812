//! Every criterion against a computation that shares no code with it; together, alone and interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::common::{Sandbox, expect_code, root};
use crate::small_unets;
use crate::small_unets::{brightness, configs, points, schedule, teacher};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use laptop_diff::backend::{Random, threads};
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Interrupt, Progress};
use laptop_diff::data::{Calibration, Encoder, prompts};
use laptop_diff::metric::{ClipScorer, Gallery};
use laptop_diff::model::ModelDirectory;
use laptop_diff::model::files::weights::Weights;
use laptop_diff::model::network::Unit;
use laptop_diff::model::unet::{UNet, UNetConfig};
use laptop_diff::sample::{self, Generator, NoiseSchedule};
use laptop_diff::score::{
    CRITERIA, Criterion, Limits, Need, ScoreError, Scores, ScoringContext, Teacher, criterion, score,
    with_parameters,
};
use serde_json::json;

const CPU: Device = Device::Cpu;

/// A small U-Net with its weights on disk.
struct Model {
    _folder: tempfile::TempDir,
    config: UNetConfig,
    unet: UNet,
    weights: Weights,
    random: Random,
}

impl Model {
    fn new(config: &serde_json::Value, seed: u64) -> miette::Result<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        small_unets::save(config, seed, folder.path())?;
        let weights = Weights::open(folder.path())?;
        let config = UNetConfig::parse(&config.to_string())?;
        let unet = UNet::new(config.clone(), weights.builder(DType::F32, &CPU)).expect("the weights fit");
        Ok(Self { _folder: folder, config, unet, weights, random: Random::new(1, "scores") })
    }

    fn teacher<'a>(&'a self, points: &'a Calibration, schedule: &'a NoiseSchedule) -> Teacher<'a> {
        teacher(&self.unet, &self.weights, points, schedule, &self.random)
    }

    /// The weights as doubles, changed by `change`, in a U-Net that computes in double precision.
    fn in_doubles(&self, change: impl Fn(&str, Tensor) -> candle_core::Result<Tensor>) -> UNet {
        let inventory = self.config.inventory();
        let tensors = inventory.tensors().map(|entry| {
            let tensor = self.weights.tensor(&entry.name, DType::F64, &CPU).expect("it was saved");
            (entry.name.clone(), change(&entry.name, tensor).expect("a change"))
        });
        UNet::new(self.config.clone(), VarBuilder::from_tensors(tensors.collect(), DType::F64, &CPU))
            .expect("the weights fit")
    }
}

/// A score by one criterion, from a folder of its own.
fn alone(teacher: &Teacher<'_>, name: &str, batch: usize) -> miette::Result<Vec<f64>> {
    alone_by(teacher, criterion(name)?, batch)
}

/// The same by a criterion with parameters.
fn alone_by(teacher: &Teacher<'_>, criterion: Arc<dyn Criterion>, batch: usize) -> miette::Result<Vec<f64>> {
    let name = criterion.info().name;
    let folder = tempfile::tempdir().expect("a folder");
    let interrupt = Interrupt::default();
    let scores = score(teacher, &[criterion], &context(batch, folder.path(), &Silent, &interrupt))?;
    Ok(scores.units.iter().map(|unit| unit.scores[name]).collect())
}

fn context<'a>(
    points: usize,
    checkpoint: &'a Path,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
) -> ScoringContext<'a> {
    ScoringContext { limits: Limits { points, variants: 7 }, checkpoint, progress, interrupt }
}

/// One row of doubles per point.
fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    let rows = tensor.to_dtype(DType::F64).and_then(|tensor| tensor.flatten_from(1)?.to_vec2());
    rows.expect("a tensor with points")
}

fn predict(unet: &UNet, points: &Calibration) -> Vec<Vec<f64>> {
    rows(&unet.forward(&points.sample, &points.timestep, &points.conditioning()).expect("a pass"))
}

fn mean_square(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// What is known of one point.
struct Truth {
    alpha: f64,
    sigma: f64,
    /// What the U-Net should have said.
    target: Vec<f64>,
}

fn truth(points: &Calibration, schedule: &NoiseSchedule, velocity: bool) -> Vec<Truth> {
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

fn without(unet: &UNet, unit: &Unit) -> UNet {
    unet.prune(&BTreeSet::from([unit.id.clone()])).expect("a known unit")
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
                let weight = |truth: &Truth| {
                    let ratio = (truth.alpha / truth.sigma).powi(2);
                    ratio.min(5.0) / if velocity { ratio + 1.0 } else { ratio }
                };
                let weights: Vec<f64> = truth.iter().map(weight).collect();
                let sum: f64 = weights.iter().zip(&losses).map(|(weight, loss)| weight * loss).sum();
                near(balanced[place], sum / weights.iter().sum::<f64>());

                // The clean latents that each prediction stands for, and how far apart they are.
                let latents = |predictions: &[Vec<f64>]| -> Vec<Vec<f64>> {
                    let clean = |x: f64, e: f64, &Truth { alpha, sigma, .. }: &Truth| {
                        if velocity { alpha * x - sigma * e } else { (x - sigma * e) / alpha }
                    };
                    let samples = rows(&points.sample);
                    let point = |at: usize| {
                        let pairs = samples[at].iter().zip(&predictions[at]);
                        pairs.map(|(x, e)| clean(*x, *e, &truth[at])).collect()
                    };
                    (0..truth.len()).map(point).collect()
                };
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
        timestep: points.timestep.clone(),
        encoder_hidden_states: widen(&points.encoder_hidden_states),
        text_embeds: points.text_embeds.as_ref().map(widen),
        time_ids: points.time_ids.as_ref().map(widen),
    }
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

    // The gradients of a double's loss, by candle itself.
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
    let (mut losses, mut sums) = (Vec::new(), Vec::new());
    for group in groups {
        let points = doubles(&points.select(group).expect("some of the points"));
        let gradients = threads::run(|| {
            let drawn = unet.forward(&points.sample, &points.timestep, &points.conditioning())?;
            (drawn - &points.noise)?.sqr()?.mean_all()?.backward()
        });
        let gradients = gradients.expect("gradients");
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

/// Asks for a stop whenever something is done.
struct Impatient<'a> {
    interrupt: &'a Interrupt,
    begun: AtomicBool,
}

impl Progress for Impatient<'_> {
    fn length(&self, _total: u64, _unit: &'static str) {
        self.begun.store(false, Relaxed);
    }
    fn position(&self, _done: u64) {
        // The first position is where the work stood.
        if self.begun.swap(true, Relaxed) {
            self.interrupt.ask();
        }
    }
    fn note(&self, _text: &str) {}
}

#[test]
fn criteria_together_are_what_they_are_alone_and_after_any_interruption() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(3);
    let model = Model::new(&config, 7)?;
    let points = points(&model.config, 5, 8).expect("points");
    let schedule = schedule("epsilon");
    let draw = |unet: &UNet| Ok(brightness(unet, &points));
    let teacher = Teacher { clip_score: Some(&draw), ..model.teacher(&points, &schedule) };
    let calm = Interrupt::default();
    let together = tempfile::tempdir().expect("a folder");
    let expected = score(&teacher, &small_unets::criteria(), &context(2, together.path(), &Silent, &calm))?;
    for name in CRITERIA.iter().map(|info| info.name) {
        let of_all: Vec<f64> = expected.units.iter().map(|unit| unit.scores[name]).collect();
        assert_eq!(alone(&teacher, name, 2)?, of_all, "{name}");
        assert!(of_all.iter().collect::<Vec<_>>().windows(2).any(|pair| pair[0] != pair[1]), "{name}");
    }

    let folder = tempfile::tempdir().expect("a folder");
    let mut interruptions = 0;
    let found = loop {
        let interrupt = Interrupt::default();
        let progress = Impatient { interrupt: &interrupt, begun: AtomicBool::new(false) };
        match score(&teacher, &small_unets::criteria(), &context(2, folder.path(), &progress, &interrupt)) {
            Err(ScoreError::Interrupted(_)) => interruptions += 1,
            other => break other?,
        }
    };
    assert_eq!(found, expected);
    // After each of three batches of a traversal, of five timesteps, and of all galleries but the last.
    assert_eq!(interruptions, 3 + 5 + model.unet.units().len());
    Ok(())
}

#[test]
fn what_a_criterion_needs_is_asked_for_before_anything_is_computed() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(0);
    let model = Model::new(&config, 9)?;
    let points = points(&model.config, 2, 10).expect("points");
    let schedule = schedule("epsilon");
    let bare = Teacher { schedule: None, ..model.teacher(&points, &schedule) };
    let folder = tempfile::tempdir().expect("a folder");
    let interrupt = Interrupt::default();
    let context = context(2, folder.path(), &Silent, &interrupt);
    let needy = |found: Result<Scores, ScoreError>| match found {
        Err(ScoreError::Needs { criterion, need }) => Some((criterion, need)),
        _ => None,
    };
    for criterion in small_unets::criteria() {
        let missing = criterion.needs().iter().copied().find(|need| *need != Need::Traversal);
        let first = [laptop_diff::score::criterion(CRITERIA[0].name)?, criterion.clone()];
        let expected = missing.map(|need| (criterion.info().name, need));
        assert_eq!(needy(score(&bare, &first, &context)), expected);
        if missing.is_some() {
            assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "it computed first");
        }
        for entry in std::fs::read_dir(folder.path()).expect("a folder") {
            std::fs::remove_file(entry.expect("an entry").path()).expect("ours");
        }
    }
    let velocity = small_unets::schedule("v_prediction");
    let mut late = points.clone();
    late.timestep = Tensor::new(&[3i64, 1000], &CPU).expect("two timesteps");
    for name in ["delta-task-loss", "taylor"] {
        let teacher = model.teacher(&late, &velocity);
        let found = score(&teacher, &[criterion(name)?], &context);
        assert!(matches!(found, Err(ScoreError::Sample(_))), "{name} at timestep 1000");
    }
    Ok(())
}

#[test]
fn delta_clip_is_the_drop_that_a_gallery_by_hand_shows() -> Result<(), Box<dyn std::error::Error>> {
    let sandbox = Sandbox::new();
    sandbox.write(
        "clip.yaml",
        "\
format: 1
name: clip
seed: 7
stages:
  - { id: teacher, use: load, with: { model: '{nano}' } }
  - { id: points, use: calibrate, with: { model: teacher, prompts: '{nano}/prompts/calibration.txt', samples: 2, drawing: { steps: 2 } } }
  - id: scores
    use: score
    with:
      model: teacher
      calibration: points
      criteria: [output-loss, delta-clip]
      additivity-sets: 7
      delta-clip:
        scorer: '{nano}/scorer'
        prompts: '{nano}/prompts/evaluation.txt'
        pictures: 3
        drawing: { sampler: euler, steps: 2, guidance-scale: 2, batch: 2 }
",
    );
    expect_code(&sandbox.run(&["run", "clip.yaml"]), 0);
    let scores = Scores::open(&sandbox.path("runs/clip/scores"))?;
    let page = std::fs::read_to_string(sandbox.path("runs/clip/report.html"))?;
    let agreement = &scores.additivity.as_ref().expect("it was asked for").agreement;
    for (name, label) in [
        ("output-loss", "sum of <code>output-loss</code>"),
        ("delta-clip", "sum of <code>delta-clip</code>"),
        ("gram", "Gram matrix"),
    ] {
        let row = format!(
            "<td>{label}</td><td class=\"number\">{:.3}</td><td class=\"number\">{:.3}</td>",
            agreement[name].r2, agreement[name].spearman
        );
        assert!(page.contains(&row), "{row}");
    }

    let nano = root().join("examples/nano-sd");
    let directory = ModelDirectory::open(&nano)?;
    let mut prompts = prompts::read(&nano.join("prompts/evaluation.txt"))?;
    prompts.truncate(3);
    let encoder = Encoder::open(&directory, DType::F32, &CPU)?;
    let (conditioning, unconditional) = (encoder.encode(&prompts)?, encoder.unconditional("", 3)?);
    let schedule = NoiseSchedule::from_config(&directory.scheduler_config()?)?;
    let vae = directory.vae(DType::F32, &CPU)?;
    let scorer = ModelDirectory::open(&nano.join("scorer"))?.scorer(DType::F32, &CPU)?;
    let scorer = ClipScorer::new(&scorer, &prompts, &prompts, &CPU)?;
    let gallery = Gallery {
        vae: &vae,
        conditioning: &conditioning,
        unconditional: Some(&unconditional),
        latent: [4, 16, 16],
        batch: 2,
        random: &Random::new(7, "scores"),
    };
    let clip_score = |unet: &UNet| -> Result<f64, Box<dyn std::error::Error>> {
        let sampler = sample::find("euler")?;
        let generator = Generator { unet, schedule: &schedule, sampler, steps: 2, guidance_scale: 2.0 };
        let folder = tempfile::tempdir()?;
        let pictures = gallery.draw(&generator, folder.path(), &Interrupt::default(), &mut |_| ())?;
        let cosines = scorer.cosines(&scorer.picture_features(&pictures)?)?;
        Ok(mean(cosines.iter().map(|cosine| 100.0 * cosine.max(0.0))))
    };
    let unet = directory.unet(DType::F32, &CPU)?;
    let with = clip_score(&unet)?;
    for place in [0, 5, unet.units().len() - 1] {
        let unit = &unet.units()[place];
        let drop = with - clip_score(&without(&unet, unit))?;
        let found = scores.units[place].scores["delta-clip"];
        assert!((found - drop).abs() < 1e-9, "{}: {found} or {drop}", unit.id);
    }
    assert!(scores.units.iter().any(|unit| unit.scores["delta-clip"].abs() > 0.1), "pictures did not change");
    Ok(())
}

#[test]
fn what_the_stage_lacks_is_said_with_its_place() {
    let sandbox = Sandbox::new();
    for (parameters, words) in [
        ("criteria: [delta-clip]", "delta-clip: { scorer: FOLDER, prompts: FILE }"),
        ("criteria: [diff-pruning], diff-pruning: { threshold: 1 }", "`threshold` is 1"),
        ("timestep-weighted: { weighting: snr }", "`snr` is not a value"),
        ("criteria: [tailor]", "taylor"),
        ("delta-clip: { scorer: s, prompts: p, drawing: { steps: 0 } }", "`delta-clip.drawing.steps` is 0"),
        ("delta-clip: { scorer: s, prompts: p, drawing: { sampler: eular } }", "did you mean `euler`"),
    ] {
        let text = format!(
            "format: 1\nname: wrong\nseed: 1\nstages:\n  - {{ id: scores, use: score, with: {{ model: m, calibration: c, {parameters} }} }}\n"
        );
        sandbox.write("wrong.yaml", &text);
        let output = sandbox.run(&["plan", "wrong.yaml"]);
        expect_code(&output, 3);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Lines are broken to the width of a terminal, with a rule at their left.
        let said = said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(said.contains(words) && said.contains("wrong.yaml:5:"), "{parameters}: {said}");
    }
}
