//! Scorers against transformers and OpenCLIP on the same machine, in one run: `cargo bench --bench scorers -- --python PYTHON`.
//!
//! A line is the time of one picture in a batch. Each measurement is a process of its own; the sides take turns. Ours and
//! transformers read the same random weights of the real shape, made under `target/bench`, and must agree. OpenCLIP is
//! measured where the Python has it.

mod answer;
mod side;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use laptop_diff::backend::{memory, threads};
use laptop_diff::model::clip::{ClipConfig, ClipModel};
use serde::Deserialize;

use answer::answer;
use side::Arguments;

const SHAPES: [&str; 2] = ["ViT-H-14", "ViT-L-14"];
/// Pictures of a batch, and batches that a process measures.
const PICTURES: usize = 8;
const TURNS: usize = 2;
/// Processes of each side.
const ROUNDS: usize = 2;
/// Set for a process that measures our side.
const OURS: &str = "LAPTOP_DIFF_BENCH_CASE";

#[derive(Deserialize)]
struct Measured {
    seconds: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    memory::keep_freed();
    if let Ok(folder) = std::env::var(OURS) {
        return measure(Path::new(&folder));
    }
    let arguments = Arguments::parse();
    let packages = ["transformers", "open_clip"].map(|name| (name, has(&arguments, name)));
    print(["scorer", "ours (s)", "transformers", "open_clip", "ratios", "", "difference"]);
    for shape in SHAPES.into_iter().filter(|shape| arguments.wants(shape)) {
        let folder = model(&arguments, shape)?;
        let (mut ours, mut theirs) = (f64::INFINITY, [None; 2]);
        for _ in 0..ROUNDS {
            for ((package, there), least) in packages.iter().zip(&mut theirs) {
                if *there {
                    let mut script = arguments.script("scorers.py");
                    script.arg("--folder").arg(&folder).args([
                        "--package",
                        package,
                        "--turns",
                        &TURNS.to_string(),
                    ]);
                    let seconds = answer::<Measured>(script)?.seconds / PICTURES as f64;
                    *least = Some(least.map_or(seconds, |least: f64| least.min(seconds)));
                }
            }
            let seconds = answer::<Measured>(this_side(&arguments, &folder)?)?.seconds;
            ours = ours.min(seconds / PICTURES as f64);
        }
        let shown = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.3}"));
        let ratio =
            |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{:.2}", ours / seconds));
        let difference = format!("{:.1e}", difference(&folder)?);
        let [one, other] = theirs;
        print([
            shape,
            &shown(Some(ours)),
            &shown(one),
            &shown(other),
            &ratio(one),
            &ratio(other),
            &difference,
        ]);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark's output is its table")]
fn print(cells: [&str; 7]) {
    let [name, numbers @ ..] = cells;
    println!("{name:<12}{}", numbers.map(|cell| format!(" {cell:>12}")).concat());
}

/// Whether the Python has a package.
fn has(arguments: &Arguments, package: &str) -> bool {
    let mut command = Command::new(&arguments.python);
    command.args(["-c", &format!("import {package}")]).output().is_ok_and(|output| output.status.success())
}

/// The folder of a model, which is made on first use.
fn model(arguments: &Arguments, shape: &str) -> Result<PathBuf, Box<dyn Error>> {
    let folder = side::root().join("target/bench").join(shape);
    if folder.join("shape.json").is_file() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder)?;
    let mut script = arguments.script("scorers.py");
    script.args(["--make", shape, "--pictures", &PICTURES.to_string(), "--folder"]).arg(&folder);
    match script.status()?.success() {
        true => Ok(folder),
        false => Err(format!("transformers could not make {}", folder.display()).into()),
    }
}

/// This program again, to measure our side.
fn this_side(arguments: &Arguments, folder: &Path) -> Result<Command, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(OURS, folder);
    let settings = [arguments.threads.to_string(), arguments.device.to_string(), arguments.dtype.to_string()];
    for (name, value) in ["--threads", "--device", "--dtype"].into_iter().zip(settings) {
        command.arg(name).arg(value);
    }
    Ok(command)
}

/// Relative L2 difference of the two sides' features.
fn difference(folder: &Path) -> Result<f64, Box<dyn Error>> {
    let read = |name: &str| -> candle_core::Result<Tensor> {
        candle_core::safetensors::load(folder.join(name), &Device::Cpu)?["features"].to_dtype(DType::F64)
    };
    let (ours, torch) = (read("ours.safetensors")?, read("torch.safetensors")?);
    let norm = |tensor: Tensor| tensor.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok((norm((&ours - &torch)?)? / norm(torch)?).sqrt())
}

/// Our side.
#[expect(clippy::print_stdout, reason = "the parent process reads the answer there")]
fn measure(folder: &Path) -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = arguments.open()?;
    let config: ClipConfig = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let weights = candle_core::safetensors::load(folder.join("model.safetensors"), &device)?;
    let model = ClipModel::new(&config, VarBuilder::from_tensors(weights, arguments.dtype.into(), &device))?;
    let pictures =
        candle_core::safetensors::load(folder.join("pictures.safetensors"), &device)?["pictures"].clone();
    let turns = || -> candle_core::Result<(Tensor, f64)> {
        let features = model.image_features(&pictures)?;
        let mut seconds = f64::INFINITY;
        for _ in 0..TURNS {
            device.synchronize()?;
            let begun = Instant::now();
            model.image_features(&pictures)?;
            device.synchronize()?;
            seconds = seconds.min(begun.elapsed().as_secs_f64());
        }
        Ok((features, seconds))
    };
    let (features, seconds) = threads::run(turns)?;
    let features = features.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    let tensors = std::collections::HashMap::from([("features", features)]);
    candle_core::safetensors::save(&tensors, folder.join("ours.safetensors"))?;
    println!("{}", serde_json::json!({ "seconds": seconds }));
    Ok(())
}
