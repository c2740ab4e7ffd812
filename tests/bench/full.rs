//! Steps of retraining at full size on a CPU, with their time and the peak memory of the process:
//! `cargo bench --bench full -- --python PYTHON sd15`.
//!
//! The student is the U-Net of SD 1.5 or SDXL without half of its parameters. The teacher is read from its file at each pass, and
//! activations are computed again by unit; SDXL has moments in 8 bits and no moving average. A line needs 16 GB of memory,
//! or 22 GB for SDXL, and 4 GB or 10 GB on disk for the model under `target/bench`.

mod answer;
mod models;
mod side;
mod step;

use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

use candle_core::{DType, Tensor};
use laptop_diff::backend::memory;
use laptop_diff::base::{Real, UnitId};
use laptop_diff::distill::DistillParameters;
use laptop_diff::model::ModelDirectory;
use laptop_diff::model::unet::UNetConfig;
use laptop_diff::train::{ActivationCheckpointing, Moments, Trainable};

use answer::answer;
use side::Arguments;
use step::{Training, parameters};

/// The family, and height and width of the latents.
const CASES: &[(&str, usize)] = &[("sd15", 64), ("sdxl", 32)];

/// Two: the first allocates, the second is measured.
const STEPS: u32 = 2;

/// Set for a process that measures a case.
const OURS: &str = "LAPTOP_DIFF_BENCH_CASE";

#[expect(clippy::print_stdout, reason = "a benchmark's output is its table")]
fn main() -> Result<(), Box<dyn Error>> {
    memory::keep_freed();
    if let Ok(job) = std::env::var(OURS) {
        return measure(&job);
    }
    let arguments = Arguments::parse();
    println!(
        "{:<28}{:>12} {:>12} {:>12} {:>16}",
        "step", "parameters", "seconds", "peak (GB)", "tensors changed"
    );
    for &(family, size) in CASES {
        let name = format!("{family} {size}x{size} batch 1");
        if !arguments.wants(&name) {
            continue;
        }
        let folder = models::model(family, || {
            let mut script = arguments.script("unet.py");
            script.args(["--make", family]);
            script
        })?;
        let mut command = Command::new(std::env::current_exe()?);
        command.env(OURS, serde_json::json!([folder, family, size]).to_string());
        command.args(["--threads", &arguments.threads.to_string()]);
        let (parameters, seconds, peak, changed, all): (u64, f64, u64, usize, usize) = answer(command)?;
        let (millions, peak) = (parameters as f64 / 1e6, peak as f64 / 1e9);
        println!(
            "{name:<28}{millions:>11.0}M {seconds:>12.1} {peak:>12.1} {:>16}",
            format!("{changed} of {all}")
        );
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the parent process reads the answer there")]
fn measure(job: &str) -> Result<(), Box<dyn Error>> {
    let device = Arguments::parse().open()?;
    let (folder, family, size): (PathBuf, String, usize) = serde_json::from_str(job)?;
    let directory = ModelDirectory::open(&folder)?;
    let student = half(&directory.unet_config()?)?;
    let parameters = match family.as_str() {
        "sdxl" => DistillParameters {
            moments: Moments::EightBit,
            ema_decay: Real::new(0.0),
            ..parameters(1, STEPS)
        },
        _ => parameters(1, STEPS),
    };
    let training = Training {
        directory: &directory,
        dtype: DType::F16,
        held: false,
        student: &student,
        size,
        parameters,
        checkpointing: ActivationCheckpointing::Unit,
        device: &device,
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let measured = training.measure(
        |student| {
            before = digests(student)?;
            Ok(())
        },
        |student| {
            after = digests(student)?;
            Ok(())
        },
    )?;
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    let answer =
        (student.inventory().parameters(), measured.seconds, measured.peak_bytes, changed, before.len());
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}

/// The configuration without as many units, evenly from front to back, as have half of all parameters.
fn half(config: &UNetConfig) -> Result<UNetConfig, Box<dyn Error>> {
    let inventory = config.inventory();
    let goal = inventory.parameters() / 2;
    let units: Vec<_> = inventory.units().iter().filter(|unit| unit.parent.is_none()).collect();
    let (mut removed, mut sum) = (BTreeSet::<UnitId>::new(), 0);
    // Every second one first.
    for unit in units.iter().step_by(2).chain(units.iter().skip(1).step_by(2)) {
        if sum + unit.parameters <= goal {
            sum += unit.parameters;
            removed.insert(unit.id.clone());
        }
    }
    Ok(config.prune(&removed)?)
}

/// One digest for each tensor of a student.
fn digests(student: &Trainable) -> candle_core::Result<Vec<blake3::Hash>> {
    let digest = |weight: &Tensor| -> candle_core::Result<blake3::Hash> {
        let numbers = weight.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Ok(blake3::hash(&bytes))
    };
    student.weights().values().map(|weight| digest(weight)).collect()
}
