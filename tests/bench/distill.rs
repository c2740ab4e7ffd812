//! A whole step of retraining against the same in torch with diffusers, on the same machine, in one run:
//! `cargo bench --bench distill -- --python PYTHON`.
//!
//! A step is: the teacher's pass, the student's forward and backward pass with task, output and feature losses, clipping, and
//! AdamW. The student is the whole U-Net with all weights times 0.9, without a moving average. Both sides read the same
//! files (random weights, made by diffusers under `target/bench`). Each measurement is a process of its own.

mod models;
mod side;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use candle_core::DType;
use laptop_diff::backend::{Random, memory};
use laptop_diff::base::{Interrupt, Progress, Real, Whole};
use laptop_diff::data::{LatentBatch, Latents};
use laptop_diff::distill::{Cadence, DistillParameters, Distillation};
use laptop_diff::model::network::Conditioning;
use laptop_diff::model::{ModelDirectory, UNet};
use laptop_diff::sample::NoiseSchedule;
use laptop_diff::train::collective::Alone;
use laptop_diff::train::watch::Watchers;
use laptop_diff::train::{ActivationCheckpointing, Trainable};
use serde::{Deserialize, Serialize};

use models::answer;
use side::Arguments;

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

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Measured {
    /// Of the fastest step.
    seconds: f64,
    /// What a step needs in addition to weights, moments and gradients.
    activation_bytes: u64,
}

impl Measured {
    fn join(self, other: Option<Self>) -> Self {
        other.map_or(self, |other| Self {
            seconds: self.seconds.min(other.seconds),
            activation_bytes: self.activation_bytes.max(other.activation_bytes),
        })
    }
}

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
            torch = Some(answer::<Measured>(script)?.join(torch));
            let ours =
                |checkpointing| answer::<Measured>(this_side(&arguments, case, &folder, checkpointing)?);
            plain = Some(ours(ActivationCheckpointing::None)?.join(plain));
            unit = Some(ours(ActivationCheckpointing::Unit)?.join(unit));
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
    let (config, random) = (directory.unet_config()?, Random::new(1, "bench"));
    let teacher = UNet::load_held(config.clone(), &directory.unet_weights()?, DType::F32, &device, true)?;
    let student = Trainable::open(&directory, |_| false, DType::F32, &device)?;
    for weight in student.weights().values() {
        weight.set(&(weight.as_detached_tensor() * 0.9)?)?;
    }
    let scratch = tempfile::tempdir()?;
    let rows = 2 * batch as usize;
    let text = |rows: usize| -> candle_core::Result<Conditioning> {
        let shape = [rows, 77, config.innermost().cross_attention_dim];
        let encoder_hidden_states = random.normal("text", rows as u64, &shape, &device)?;
        Ok(Conditioning { encoder_hidden_states, text_embeds: None, time_ids: None })
    };
    let latents = random.normal("latents", 0, &[rows, config.in_channels, size, size], &device)?;
    let captions: Vec<String> = (0..rows).map(|row| row.to_string()).collect();
    Latents::save(scratch.path(), &LatentBatch { latents, conditioning: text(rows)? }, &captions, &text(1)?)?;
    let data = Latents::open(scratch.path())?;
    let parameters = DistillParameters {
        steps: Whole::new(turns + 2),
        batch_size: Whole::new(batch),
        normalisation_batches: Whole::new(1),
        ema_decay: Real::new(0.0),
        unconditional_fraction: Real::new(0.0),
        ..Default::default()
    };
    let watch = Watch { gradients: 4 * config.inventory().parameters(), state: Mutex::default() };
    let training = Distillation {
        teacher: &teacher,
        student: &student,
        schedule: &NoiseSchedule::from_config(&serde_json::json!({ "beta_schedule": "scaled_linear" }))?,
        data: &data,
        parameters: &parameters,
        checkpointing,
        device: &device,
        random: &random,
        checkpoint: scratch.path(),
        cadence: Cadence { steps: None, seconds: f64::INFINITY, ..Cadence::default() },
        easel: None,
        watcher: &Watchers(Vec::new()),
        progress: &watch,
        interrupt: &Interrupt::default(),
        collective: &Alone,
    };
    training.run()?;
    let state = watch.state.into_inner()?;
    let measured = Measured { seconds: state.fastest, activation_bytes: state.activation_bytes };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// Measures the steps from outside: their time, and the memory of the second.
struct Watch {
    gradients: u64,
    state: Mutex<State>,
}

struct State {
    begun: Instant,
    before: u64,
    fastest: f64,
    activation_bytes: u64,
}

impl Default for State {
    fn default() -> Self {
        Self { begun: Instant::now(), before: 0, fastest: f64::INFINITY, activation_bytes: 0 }
    }
}

impl Progress for Watch {
    fn length(&self, _total: u64, _unit: &'static str) {}

    fn position(&self, done: u64) {
        let mut state = self.state.lock().expect("nobody panicked");
        match done {
            0 => {}
            1 => {
                memory::give_back();
                memory::reset_peak();
                state.before = memory::resident_bytes().unwrap_or_default();
            }
            2 => {
                let needed = memory::peak_bytes().unwrap_or_default().saturating_sub(state.before);
                state.activation_bytes = needed.saturating_sub(self.gradients);
            }
            _ => state.fastest = state.fastest.min(state.begun.elapsed().as_secs_f64()),
        }
        state.begun = Instant::now();
    }

    fn note(&self, _text: &str) {}
}
