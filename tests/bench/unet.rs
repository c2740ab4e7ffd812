//! Whole U-Nets against diffusers on the same machine, in one run: `cargo bench --bench unet -- --python PYTHON`.
//!
//! Each measurement is a process of its own, so that its peak memory is its own too; both sides read the same files
//! (random weights of the real shapes, made by diffusers under `target/bench`), take turns, and must agree.

mod answer;
mod models;
mod side;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var};
use laptop_diff::backend::{memory, threads};
use laptop_diff::model::ModelDirectory;
use laptop_diff::model::network::Conditioning;
use laptop_diff::nn::gradients::Clip;
use laptop_diff::nn::optim::{AdamW, Moments, Trained};
use laptop_diff::nn::{Found, record};
use laptop_diff::train::Trainable;
use serde::Deserialize;

use answer::answer;
use side::{Arguments, Peer};

/// One line of the table.
#[derive(Clone, Copy)]
struct Case {
    family: &'static str,
    batch: usize,
    /// Height and width of the latents.
    size: usize,
    /// `forward`; `gradient`, which is forward and backward; or `training`, which adds AdamW's step.
    passes: &'static str,
    /// Passes that one process measures.
    turns: usize,
}

const fn case(family: &'static str, batch: usize, size: usize, passes: &'static str, turns: usize) -> Case {
    Case { family, batch, size, passes, turns }
}

/// SDXL's gradients in f32 need more memory than the machines of our CI have.
const ON_CPU: &[Case] = &[
    case("nano", 16, 16, "forward", 20),
    case("nano", 16, 16, "gradient", 20),
    case("nano", 16, 16, "training", 20),
    case("sd15", 1, 64, "forward", 3),
    case("sd15", 2, 64, "forward", 2),
    case("sd15", 1, 64, "gradient", 2),
    case("sdxl", 1, 64, "forward", 2),
    case("sdxl", 2, 64, "forward", 1),
];

const ON_CUDA: &[Case] = &[
    case("nano", 16, 16, "training", 20),
    case("sd15", 1, 64, "forward", 20),
    case("sd15", 8, 64, "forward", 10),
    case("sd15", 1, 64, "training", 10),
    case("sd15", 8, 64, "training", 5),
    case("sdxl", 1, 128, "forward", 10),
    case("sdxl", 4, 128, "forward", 5),
    case("sdxl", 1, 128, "training", 5),
    case("sdxl", 4, 128, "training", 3),
];

/// Processes of each side for a line.
const ROUNDS: usize = 2;

#[derive(Deserialize)]
struct Measured {
    seconds: f64,
    peak_bytes: u64,
}

impl Case {
    /// Whether a peer can do it.
    fn suits(&self, peer: Peer) -> bool {
        peer == Peer::Compile || self.passes == "forward"
    }
}

impl Measured {
    /// The faster, and the larger peak.
    fn join(self, other: Option<Self>) -> Self {
        match other {
            Some(other) => Self {
                seconds: self.seconds.min(other.seconds),
                peak_bytes: self.peak_bytes.max(other.peak_bytes),
            },
            None => self,
        }
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    memory::keep_freed();
    if let Ok(case) = std::env::var(OURS) {
        return measure(&case);
    }
    let arguments = Arguments::parse();
    println_row(["U-Net", "ours (s)", "other (s)", "ratio", "ours (GB)", "other (GB)", "difference"]);
    let cases = if arguments.device.to_string().starts_with("cuda") { ON_CUDA } else { ON_CPU };
    for case in cases {
        let name =
            format!("{} {}x{} batch {} {}", case.family, case.size, case.size, case.batch, case.passes);
        if !arguments.wants(&name) {
            continue;
        }
        let folder = models::model(case.family, || {
            let mut script = arguments.script("unet.py");
            script.args(["--make", case.family]);
            script
        })?;
        let peers = arguments.peers.iter().copied().filter(|peer| case.suits(*peer)).map(Some);
        let engines: Vec<_> = std::iter::once(None).chain(peers).map(engine).collect();
        let (mut ours, mut others) = (None, Vec::new());
        others.resize_with(engines.len(), || None);
        for _ in 0..ROUNDS {
            for ((engine, _), other) in engines.iter().zip(&mut others) {
                let mut script = with_case(arguments.script("unet.py"), case, &folder);
                script.args(["--engine", engine]);
                *other = Some(answer::<Measured>(script)?.join(other.take()));
            }
            ours = Some(answer::<Measured>(this_side(&arguments, case, &folder)?)?.join(ours));
        }
        let ours = ours.ok_or("no round was measured")?;
        for ((engine, peer), other) in engines.into_iter().zip(others) {
            let other = other.ok_or("no round was measured")?;
            println_row([
                peer.unwrap_or(&name),
                &format!("{:.3}", ours.seconds),
                &format!("{:.3}", other.seconds),
                &format!("{:.2}", ours.seconds / other.seconds),
                &format!("{:.2}", ours.peak_bytes as f64 / 1e9),
                &format!("{:.2}", other.peak_bytes as f64 / 1e9),
                &format!("{:.1e}", difference(&folder, engine)?),
            ]);
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark's output is its table")]
fn println_row(cells: [&str; 7]) {
    let [name, numbers @ ..] = cells;
    println!("{name:<44}{}", numbers.map(|cell| format!(" {cell:>10}")).concat());
}

/// The engine of `unet.py` for a peer, and its name in the table; torch as it is without one.
fn engine(peer: Option<Peer>) -> (&'static str, Option<&'static str>) {
    match peer {
        None => ("torch", None),
        Some(Peer::Compile) => ("compile", Some("  torch.compile")),
        Some(Peer::Openvino) => ("openvino", Some("  OpenVINO")),
    }
}

fn with_case(mut script: Command, case: &Case, folder: &Path) -> Command {
    script.arg("--folder").arg(folder).args(["--passes", case.passes]);
    for (name, value) in [("--batch", case.batch), ("--size", case.size), ("--turns", case.turns)] {
        script.args([name, &value.to_string()]);
    }
    script
}

/// Set for a process that measures our side.
const OURS: &str = "LAPTOP_DIFF_BENCH_CASE";

/// This program again, to measure one case.
fn this_side(
    arguments: &Arguments,
    case: &Case,
    folder: &Path,
) -> std::result::Result<Command, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    let Case { batch, size, passes, turns, .. } = case;
    let file = folder.join(format!("inputs-{batch}-{size}.safetensors"));
    let job = serde_json::json!([folder, file, passes, turns]);
    command.env(OURS, job.to_string());
    let settings = [arguments.threads.to_string(), arguments.device.to_string(), arguments.dtype.to_string()];
    for (name, value) in ["--threads", "--device", "--dtype"].into_iter().zip(settings) {
        command.arg(name).arg(value);
    }
    Ok(command)
}

/// Relative L2 difference of our prediction and another's.
fn difference(folder: &Path, engine: &str) -> std::result::Result<f64, Box<dyn Error>> {
    let read = |name: &str| -> Result<Tensor> {
        let tensors = candle_core::safetensors::load(folder.join(name), &Device::Cpu)?;
        tensors["prediction"].to_dtype(DType::F64)
    };
    let (ours, torch) = (read("ours.safetensors")?, read(&format!("{engine}.safetensors"))?);
    let norm = |tensor: Tensor| tensor.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok((norm((&ours - &torch)?)? / norm(torch)?).sqrt())
}

/// Our side of one case.
#[expect(clippy::print_stdout, reason = "the parent process reads the answer there")]
fn measure(job: &str) -> std::result::Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let (folder, file, passes, turns): (PathBuf, PathBuf, String, usize) = serde_json::from_str(job)?;
    let device = arguments.open()?;
    let given = candle_core::safetensors::load(file, &device)?;
    let conditioning = Conditioning {
        encoder_hidden_states: given["encoder_hidden_states"].clone(),
        text_embeds: given.get("text_embeds").cloned(),
        time_ids: given.get("time_ids").cloned(),
    };
    let directory = ModelDirectory::open(&folder)?;
    let (unet, variables) = if passes == "forward" {
        (directory.unet(arguments.dtype.into(), &device)?, Vec::new())
    } else {
        let trainable = Trainable::open(&directory, |_| false, arguments.dtype.into(), &device)?;
        (trainable.unet().clone(), trainable.weights().values().cloned().collect())
    };
    let moments = if passes == "training" {
        let zeros = |variable: &Var| Var::zeros(variable.shape(), DType::F32, &device);
        variables.iter().map(|v| Ok((zeros(v)?, zeros(v)?))).collect::<Result<Vec<_>>>()?
    } else {
        Vec::new()
    };
    let call = || -> Result<Tensor> {
        let predict = || unet.forward(&given["sample"], &given["timestep"], &conditioning);
        if passes == "forward" {
            return predict();
        }
        let (prediction, tape) = record(predict)?;
        // Of the mean square difference.
        let difference = (prediction.to_dtype(DType::F32)?.detach() - &given["target"])?;
        let gradient =
            (&difference * (2.0 / difference.elem_count() as f64))?.to_dtype(prediction.dtype())?;
        step(&tape.backward([(prediction.clone(), gradient)])?, &variables, &moments)?;
        Ok(prediction.detach())
    };
    let mut measured = None;
    let turns = || -> Result<(Tensor, f64)> {
        let prediction = call()?;
        let mut seconds = f64::INFINITY;
        for _ in 0..turns {
            device.synchronize()?;
            let begun = Instant::now();
            call()?;
            device.synchronize()?;
            seconds = seconds.min(begun.elapsed().as_secs_f64());
        }
        Ok((prediction, seconds))
    };
    let on_card = memory::peak_on_card(&device, || {
        measured = Some(threads::run(turns)?);
        Result::Ok(())
    })?;
    let (prediction, seconds) = measured.ok_or("nothing was measured")?;
    let prediction = prediction.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    let tensors = std::collections::HashMap::from([("prediction", prediction)]);
    candle_core::safetensors::save(&tensors, folder.join("ours.safetensors"))?;
    // The device's, or that of the process where both are the same.
    let peak_bytes = on_card.ok().or_else(memory::peak_bytes).unwrap_or_default();
    println!("{}", serde_json::json!({ "seconds": seconds, "peak_bytes": peak_bytes }));
    Ok(())
}

/// AdamW, where there are moments.
fn step(gradients: &Found, variables: &[Var], moments: &[(Var, Var)]) -> Result<()> {
    let settings = AdamW { learning_rate: 1e-5, ..AdamW::default() };
    let trained = variables.iter().zip(moments).map(|(parameter, (first, second))| Trained {
        parameter,
        gradient: gradients.get(parameter).map(|gradient| (gradient, Moments::F32([first, second]))),
        average: None,
    });
    settings.step_all(&trained.collect::<Vec<_>>(), 1, &Clip::known(1.0, 1.0), 0.0)
}
