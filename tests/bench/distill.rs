//! A whole step of retraining against the same in torch with diffusers, on the same machine, in one run:
//! `cargo bench --bench distill -- --python PYTHON`.
//!
//! A step is: the teacher's pass, the student's forward and backward pass with task, output and feature losses, clipping, and
//! AdamW. The student is the whole U-Net with all weights times 0.9, without a moving average. Both sides read the same
//! files (random weights, made by diffusers under `target/bench`). Each measurement is a process of its own.

mod answer;
mod models;
mod side;
mod step;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::DType;
use laptop_diff::backend::memory;
use laptop_diff::base::Real;
use laptop_diff::distill::DistillParameters;
use laptop_diff::model::ModelDirectory;
use laptop_diff::train::{ActivationCheckpointing, Trainable};

use answer::answer;
use side::Arguments;
use step::{Measured, Training, parameters};

/// One line of the table.
#[derive(Clone, Copy)]
struct Case {
    family: &'static str,
    batch: usize,
    /// Height and width of the latents.
    size: usize,
    /// Steps that one process measures.
    turns: u32,
}

const CASES: &[Case] = &[
    Case { family: "nano", batch: 16, size: 16, turns: 12 },
    // SD 1.5 with a quarter of its channels: 57 M parameters.
    Case { family: "sd15-quarter", batch: 4, size: 32, turns: 5 },
];

/// Processes of each side for a line.
const ROUNDS: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    memory::keep_freed();
    if let Ok(job) = std::env::var(OURS) {
        return measure(&job);
    }
    let arguments = Arguments::parse();
    println_row(["step", "ours (s)", "torch (s)", "ratio", "unit (s)", "to ours", "memory"]);
    for case in CASES {
        let name = format!("{} {}x{} batch {}", case.family, case.size, case.size, case.batch);
        if !arguments.wants(&name) {
            continue;
        }
        let folder = models::model(case.family, || {
            let mut script = arguments.script("distill.py");
            script.args(["--make", case.family]);
            script
        })?;
        let (mut plain, mut unit, mut torch) = (None, None, None);
        for _ in 0..ROUNDS {
            let mut script = arguments.script("distill.py");
            script.arg("--folder").arg(&folder);
            for (name, value) in
                [("--batch", case.batch), ("--size", case.size), ("--turns", case.turns as usize)]
            {
                script.args([name, &value.to_string()]);
            }
            torch = Some(best(answer(script)?, torch));
            let ours =
                |checkpointing| answer::<Measured>(this_side(&arguments, case, &folder, checkpointing)?);
            plain = Some(best(ours(ActivationCheckpointing::None)?, plain));
            unit = Some(best(ours(ActivationCheckpointing::Unit)?, unit));
        }
        let (Some(plain), Some(unit), Some(torch)) = (plain, unit, torch) else { continue };
        println_row([
            &name,
            &format!("{:.3}", plain.seconds),
            &format!("{:.3}", torch.seconds),
            &format!("{:.2}", plain.seconds / torch.seconds),
            &format!("{:.3}", unit.seconds),
            &format!("{:.2}", unit.seconds / plain.seconds),
            &format!("{:.2}", unit.activation_bytes as f64 / plain.activation_bytes as f64),
        ]);
    }
    Ok(())
}

/// The faster, and the larger sizes.
fn best(one: Measured, other: Option<Measured>) -> Measured {
    other.map_or(one, |other| Measured {
        seconds: one.seconds.min(other.seconds),
        activation_bytes: one.activation_bytes.max(other.activation_bytes),
        peak_bytes: one.peak_bytes.max(other.peak_bytes),
    })
}

#[expect(clippy::print_stdout, reason = "a benchmark's output is its table")]
fn println_row(cells: [&str; 7]) {
    let [name, numbers @ ..] = cells;
    println!("{name:<28}{}", numbers.map(|cell| format!(" {cell:>10}")).concat());
}

/// Set for a process that measures our side.
const OURS: &str = "LAPTOP_DIFF_BENCH_CASE";

/// This program again, to measure one case.
fn this_side(
    arguments: &Arguments,
    case: &Case,
    folder: &Path,
    checkpointing: ActivationCheckpointing,
) -> Result<Command, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    let job = serde_json::json!([folder, case.batch, case.size, case.turns, checkpointing]);
    command.env(OURS, job.to_string()).args(["--threads", &arguments.threads.to_string()]);
    Ok(command)
}

/// Our side of one case.
#[expect(clippy::print_stdout, reason = "the parent process reads the answer there")]
fn measure(job: &str) -> Result<(), Box<dyn Error>> {
    let device = Arguments::parse().open()?;
    let (folder, batch, size, turns, checkpointing): (PathBuf, u32, usize, u32, ActivationCheckpointing) =
        serde_json::from_str(job)?;
    let directory = ModelDirectory::open(&folder)?;
    let training = Training {
        directory: &directory,
        dtype: DType::F32,
        held: true,
        student: &directory.unet_config()?,
        size,
        parameters: DistillParameters {
            ema_decay: Real::new(0.0),
            unconditional_fraction: Real::new(0.0),
            ..parameters(batch, turns + 2)
        },
        checkpointing,
        device: &device,
    };
    let smaller = |student: &Trainable| {
        let mut weights = student.weights().values();
        weights.try_for_each(|weight| weight.set(&(weight.as_detached_tensor() * 0.9)?))
    };
    let measured = training.measure(smaller, |_| Ok(()))?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
