//! The cost of scoring every unit: the walk, compared with one forward pass per unit of our own U-Net and of diffusers. `cargo bench --bench score -- --python PYTHON`
//!
//! All three use the same weights and points, and must find the same losses.

mod answer;
mod models;
mod side;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use candle_core::DType;
use laptop_diff::backend::{memory, threads};
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Interrupt, median};
use laptop_diff::data::Calibration;
use laptop_diff::model::ModelDirectory;
use laptop_diff::model::unet::UNet;
use laptop_diff::nn::mean_square_difference;
use laptop_diff::score::{Limits, ScoringContext, traverse};
use serde::Deserialize;

use answer::answer;
use side::Arguments;

/// A line of the table: a U-Net, the number of points, and the number of repetitions.
struct Case {
    name: &'static str,
    points: usize,
    rounds: usize,
}

const CASES: &[Case] =
    &[Case { name: "nano", points: 16, rounds: 5 }, Case { name: "sd15-quarter", points: 2, rounds: 2 }];

/// The bound on [`off`] in f32. Half precisions have no bound: their rounding is as large as the loss of some units.
const BOUND: f64 = 1e-3;

type Losses = BTreeMap<String, f64>;

#[derive(Deserialize)]
struct Measured {
    seconds: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    memory::keep_freed();
    let arguments = Arguments::parse();
    row(["U-Net", "units", "walk (s)", "plain (s)", "torch (s)", "walk/plain", "walk/torch", "off"]);
    for case in CASES.iter().filter(|case| arguments.wants(case.name)) {
        measure(&arguments, case)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments, case: &Case) -> Result<(), Box<dyn Error>> {
    let folder = models::model(case.name, || {
        let mut script = arguments.script("score.py");
        script.arg("--make");
        script
    })?;
    let torch = || {
        let mut script = arguments.script("score.py");
        script.arg("--folder").arg(&folder);
        script.args(["--points", &case.points.to_string(), "--rounds", &case.rounds.to_string()]);
        answer::<Measured>(script)
    };
    // Before and after, because the load of the machine varies.
    let before = torch()?;
    let device = arguments.open()?;
    let unet = ModelDirectory::open(&folder)?.unet(arguments.dtype.into(), &device)?;
    let points = Calibration::load(&folder.join("points.safetensors"), &device)?;
    let (mut walk, mut plain) = (f64::INFINITY, f64::INFINITY);
    let (mut found, mut expected) = (Losses::new(), Losses::new());
    threads::run(|| -> Result<(), Box<dyn Error + Send + Sync>> {
        for _ in 0..case.rounds {
            let begun = Instant::now();
            found = by_walk(&unet, &points)?;
            walk = walk.min(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            expected = the_plain_way(&unet, &points)?;
            plain = plain.min(begun.elapsed().as_secs_f64());
        }
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    let torch = torch()?.seconds.min(before.seconds);
    let theirs: Losses = read(&folder.join("torch.json"))?;
    let off = off(&found, &expected)?.max(off(&found, &theirs)?);
    if unet.dtype() == DType::F32 && off > BOUND {
        return Err(format!("{}: losses differ by {off:.0e} of their median", case.name).into());
    }
    row([
        case.name,
        &unet.units().len().to_string(),
        &format!("{walk:.3}"),
        &format!("{plain:.3}"),
        &format!("{torch:.3}"),
        &format!("{:.3}", walk / plain),
        &format!("{:.3}", walk / torch),
        &format!("{off:.0e}"),
    ]);
    Ok(())
}

fn by_walk(unet: &UNet, points: &Calibration) -> Result<Losses, Box<dyn Error + Send + Sync>> {
    let checkpoint = tempfile::tempdir()?;
    let context = ScoringContext {
        limits: Limits::default(),
        weights: None,
        checkpoint: checkpoint.path(),
        progress: &Silent,
        interrupt: &Interrupt::default(),
    };
    let gram = traverse(unet, points, None, &context)?.gram;
    Ok(gram.units().iter().enumerate().map(|(row, unit)| (unit.to_string(), gram.at(row, row))).collect())
}

/// The teacher, then the U-Net without each unit, in the same batches as the walk.
fn the_plain_way(unet: &UNet, points: &Calibration) -> Result<Losses, Box<dyn Error + Send + Sync>> {
    let batch = Limits::default().points;
    let mut losses = Losses::new();
    for start in (0..points.len()).step_by(batch) {
        let part = points.batch(start..points.len().min(start + batch))?;
        let predict = |unet: &UNet| unet.forward(&part.sample, &part.timestep, &part.conditioning());
        let teacher = predict(unet)?;
        for unit in unet.units() {
            let without = predict(&unet.prune(&BTreeSet::from([unit.id.clone()]))?)?;
            let loss = mean_square_difference(&without, &teacher)?.to_scalar::<f32>()?;
            let share = part.len() as f64 / points.len() as f64;
            *losses.entry(unit.id.to_string()).or_default() += share * f64::from(loss);
        }
    }
    Ok(losses)
}

/// The largest difference of two tables of the same units, divided by the median loss: small losses are mostly rounding.
fn off(one: &Losses, other: &Losses) -> Result<f64, Box<dyn Error>> {
    if !one.keys().eq(other.keys()) {
        return Err(
            format!("the sides score different units: {:?} and {:?}", one.keys(), other.keys()).into()
        );
    }
    let losses: Vec<_> = other.values().copied().collect();
    let most = one.iter().map(|(unit, loss)| (loss - other[unit]).abs()).fold(0.0, f64::max);
    Ok(most / median(&losses))
}

fn read(path: &Path) -> Result<Losses, Box<dyn Error>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[expect(clippy::print_stdout, reason = "a benchmark's output is its table")]
fn row(cells: [&str; 8]) {
    let [name, numbers @ ..] = cells;
    println!("{name:<14}{}", numbers.map(|cell| format!(" {cell:>10}")).concat());
}
