//! Each layer of a U-Net against torch on the same machine, in one run: `cargo bench --bench layers -- --python PYTHON`.
//!
//! Both sides use the same number of threads and take turns; a figure is the fastest of its turns, which other
//! work on the machine disturbs least. "training" is forward and backward with a gradient for every operand.

mod side;

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor, Var};
use laptop_diff::backend::{Random, memory, threads};
use laptop_diff::nn::gradients::Clip;
use laptop_diff::nn::optim::{AdamW, Moments, Trained};
use laptop_diff::nn::{self, Conv2d, GroupNorm, LayerNorm, Linear};
use serde::Serialize;

use side::Arguments;

/// What is measured; the fields are torch's side's arguments too.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Operation {
    Conv2d {
        batch: usize,
        input: usize,
        output: usize,
        size: usize,
        kernel: usize,
        stride: usize,
        upsampled: bool,
    },
    Linear {
        rows: usize,
        input: usize,
        output: usize,
    },
    GroupNorm {
        batch: usize,
        channels: usize,
        size: usize,
        silu: bool,
    },
    LayerNorm {
        rows: usize,
        size: usize,
    },
    Attention {
        batch: usize,
        heads: usize,
        queries: usize,
        keys: usize,
        dim: usize,
    },
    Geglu {
        rows: usize,
        width: usize,
    },
    Silu {
        elements: usize,
    },
    Upsample {
        batch: usize,
        channels: usize,
        size: usize,
    },
    Adamw {
        tensors: usize,
        elements: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Pass {
    Forward,
    Training,
}

const fn conv(batch: usize, input: usize, output: usize, size: usize, kernel: usize) -> Operation {
    Operation::Conv2d { batch, input, output, size, kernel, stride: 1, upsampled: false }
}

/// The layers of SD v1.5 and SDXL at 64x64 latents, and of the shipped small model at batch 16.
const LAYERS: &[Operation] = &[
    conv(1, 4, 320, 64, 3),
    conv(1, 320, 320, 64, 3),
    conv(2, 320, 320, 64, 3),
    conv(1, 960, 320, 64, 3),
    conv(1, 320, 4, 64, 3),
    conv(1, 640, 640, 32, 3),
    conv(1, 1920, 640, 32, 3),
    conv(1, 1280, 1280, 16, 3),
    conv(2, 1280, 1280, 16, 3),
    conv(1, 1280, 1280, 8, 3),
    conv(1, 2560, 1280, 8, 3),
    Operation::Conv2d { batch: 1, input: 320, output: 320, size: 64, kernel: 3, stride: 2, upsampled: false },
    Operation::Conv2d { batch: 1, input: 640, output: 640, size: 32, kernel: 3, stride: 1, upsampled: true },
    conv(1, 320, 320, 64, 1),
    conv(1, 960, 640, 32, 1),
    conv(1, 1280, 1280, 16, 1),
    conv(16, 32, 32, 16, 3),
    conv(16, 80, 48, 8, 3),
    conv(16, 80, 80, 4, 3),
    conv(16, 48, 48, 2, 3),
    conv(16, 32, 32, 16, 1),
    Operation::Linear { rows: 4096, input: 320, output: 2560 },
    Operation::Linear { rows: 4096, input: 1280, output: 320 },
    Operation::Linear { rows: 1024, input: 640, output: 640 },
    Operation::Linear { rows: 256, input: 1280, output: 10240 },
    Operation::Linear { rows: 77, input: 768, output: 320 },
    Operation::Linear { rows: 1, input: 1280, output: 1280 },
    Operation::Linear { rows: 4096, input: 32, output: 256 },
    Operation::GroupNorm { batch: 1, channels: 320, size: 64, silu: true },
    Operation::GroupNorm { batch: 1, channels: 640, size: 32, silu: false },
    Operation::GroupNorm { batch: 2, channels: 1280, size: 8, silu: true },
    Operation::GroupNorm { batch: 16, channels: 32, size: 16, silu: true },
    Operation::LayerNorm { rows: 4096, size: 320 },
    Operation::LayerNorm { rows: 256, size: 1280 },
    Operation::LayerNorm { rows: 4096, size: 32 },
    Operation::Attention { batch: 1, heads: 8, queries: 4096, keys: 4096, dim: 40 },
    Operation::Attention { batch: 1, heads: 8, queries: 1024, keys: 1024, dim: 80 },
    Operation::Attention { batch: 1, heads: 10, queries: 1024, keys: 1024, dim: 64 },
    Operation::Attention { batch: 1, heads: 8, queries: 64, keys: 64, dim: 160 },
    Operation::Attention { batch: 1, heads: 8, queries: 4096, keys: 77, dim: 40 },
    Operation::Attention { batch: 1, heads: 20, queries: 256, keys: 77, dim: 64 },
    Operation::Attention { batch: 16, heads: 4, queries: 256, keys: 256, dim: 8 },
    Operation::Geglu { rows: 4096, width: 1280 },
    Operation::Geglu { rows: 4096, width: 128 },
    Operation::Silu { elements: 1280 * 1024 },
    Operation::Upsample { batch: 1, channels: 640, size: 32 },
    Operation::Adamw { tensors: 20, elements: 2_500_000 },
    Operation::Adamw { tensors: 300, elements: 10_000 },
];

/// Turns of each side.
const TURNS: usize = 5;
/// How long a turn should take at least, in seconds.
const TURN: f64 = 0.05;

fn main() -> std::result::Result<(), Box<dyn Error>> {
    memory::keep_freed();
    let arguments = Arguments::parse();
    let device = arguments.open()?;
    let mut peer = Peer::start(&arguments, "layers.py")?;
    let mut rows = Vec::new();
    for layer in LAYERS {
        for pass in [Pass::Forward, Pass::Training] {
            let name =
                format!("{} {}", serde_json::to_value(pass)?.as_str().unwrap_or_default(), name(layer));
            let trains = pass == Pass::Training && !matches!(layer, Operation::Adamw { .. });
            if !arguments.wants(&name) || (pass == Pass::Training) != trains {
                continue;
            }
            let call = prepare(*layer, trains, arguments.dtype.into(), &device)?;
            let time = |repeats: usize| {
                threads::run(|| -> Result<f64> {
                    let begun = Instant::now();
                    for _ in 0..repeats {
                        call()?;
                    }
                    device.synchronize()?;
                    Ok(begun.elapsed().as_secs_f64() / repeats as f64)
                })
            };
            time(1)?;
            let repeats = ((TURN / time(1)?).ceil() as usize).clamp(1, 1000);
            let job = serde_json::json!({ "layer": layer, "pass": pass, "repeats": repeats });
            let (mut ours, mut torch) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..TURNS {
                torch = torch.min(peer.ask(&job)?);
                ours = ours.min(time(repeats)?);
            }
            rows.push((name, ours, torch));
            table(&rows[rows.len() - 1..], rows.len() == 1);
        }
    }
    summary(&rows);
    Ok(())
}

/// The line of the table: the kind and its sizes.
fn name(layer: &Operation) -> String {
    let text = format!("{layer:?}").to_lowercase();
    text.replace(['{', '}', ','], "").replace(": ", "=").split_whitespace().collect::<Vec<_>>().join(" ")
}

type Call<'a> = Box<dyn Fn() -> Result<()> + Send + Sync + 'a>;

fn prepare(layer: Operation, trains: bool, dtype: DType, device: &Device) -> Result<Call<'_>> {
    let random = Random::new(1, "bench");
    let of_type = |dtype: DType, index: u64, shape: &[usize]| -> Result<Tensor> {
        let tensor = random.normal("operand", index, shape, device)?.to_dtype(dtype)?;
        if trains { Ok(Var::from_tensor(&tensor)?.into_inner()) } else { Ok(tensor) }
    };
    let tensor = |index, shape: &[usize]| of_type(nn::activation_dtype(dtype, device), index, shape);
    // Only the weights of products are in half precision on the CPU.
    let weight = |shape: &[usize]| of_type(dtype, 1, shape);
    let image = |shape: &[usize]| -> Result<Tensor> {
        let dtype = nn::activation_dtype(dtype, device);
        let image = nn::image::begin(&random.normal("operand", 0, shape, device)?.to_dtype(dtype)?)?;
        if trains { Ok(Var::from_tensor(&image)?.into_inner()) } else { Ok(image) }
    };
    let three = |a: &[usize], b: &[usize], c: &[usize]| -> Result<[Tensor; 3]> {
        Ok([tensor(0, a)?, tensor(1, b)?, tensor(2, c)?])
    };
    let run: Box<dyn Fn() -> Result<Tensor> + Send + Sync> = match layer {
        Operation::Conv2d { batch, input, output, size, kernel, stride, upsampled } => {
            let x = image(&[batch, input, size, size])?;
            let (weight, bias) = (weight(&[output, input, kernel, kernel])?, Some(tensor(2, &[output])?));
            let conv = Conv2d { weight, bias, stride, padding: kernel / 2 };
            Box::new(move || if upsampled { conv.forward_upsampled(&x) } else { conv.forward(&x) })
        }
        Operation::Linear { rows, input, output } => {
            let x = tensor(0, &[rows, input])?;
            let linear = Linear { weight: weight(&[output, input])?, bias: Some(tensor(2, &[output])?) };
            Box::new(move || linear.forward(&x))
        }
        Operation::GroupNorm { batch, channels, size, silu } => {
            let x = image(&[batch, channels, size, size])?;
            let (weight, bias) = (tensor(1, &[channels])?, tensor(2, &[channels])?);
            let norm = GroupNorm { weight, bias, groups: 32, eps: 1e-5 };
            Box::new(move || if silu { norm.forward_silu(&x) } else { norm.forward(&x) })
        }
        Operation::LayerNorm { rows, size } => {
            let [x, weight, bias] = three(&[rows, size], &[size], &[size])?;
            let norm = LayerNorm { weight, bias, eps: 1e-5 };
            Box::new(move || norm.forward(&x))
        }
        Operation::Attention { batch, heads, queries, keys, dim } => {
            let (of_queries, of_keys) = ([batch, queries, heads * dim], [batch, keys, heads * dim]);
            let [q, k, v] = three(&of_queries, &of_keys, &of_keys)?;
            Box::new(move || nn::attention_of(dtype, &q, &k, &v, heads, false))
        }
        Operation::Geglu { rows, width } => {
            let x = tensor(0, &[rows, 2 * width])?;
            Box::new(move || nn::geglu(&x))
        }
        Operation::Silu { elements } => {
            let x = tensor(0, &[elements])?;
            Box::new(move || nn::silu(&x))
        }
        Operation::Upsample { batch, channels, size } => {
            let x = image(&[batch, channels, size, size])?;
            Box::new(move || nn::upsample_nearest_2x(&x))
        }
        Operation::Adamw { tensors, elements } => return adamw(tensors, elements, device),
    };
    Ok(Box::new(move || {
        if !trains {
            return run().map(drop);
        }
        let (y, tape) = nn::record(&run)?;
        tape.backward([(y.clone(), y.ones_like()?)]).map(drop)
    }))
}

fn adamw(tensors: usize, elements: usize, device: &Device) -> Result<Call<'_>> {
    let settings = AdamW { learning_rate: 1e-5, ..AdamW::default() };
    let variable = || Var::zeros(elements, DType::F32, device);
    let slots =
        (0..tensors).map(|_| Ok([variable()?, variable()?, variable()?])).collect::<Result<Vec<_>>>()?;
    let gradient = Random::new(1, "bench").normal("gradient", 0, &[elements], device)?;
    Ok(Box::new(move || {
        let trained = slots.iter().map(|[parameter, first, second]| Trained {
            parameter,
            gradient: Some((&gradient, Moments::F32([first, second]))),
            average: None,
        });
        settings.step_all(&trained.collect::<Vec<_>>(), 100, &Clip::known(1.0, 1.0), 0.0)
    }))
}

/// A Python process that answers jobs, one a line.
struct Peer {
    process: Child,
    jobs: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(arguments: &Arguments, script: &str) -> std::result::Result<Self, Box<dyn Error>> {
        let mut command = arguments.script(script);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| {
            format!("cannot start {}: {error}; give --python", arguments.python.display())
        })?;
        let jobs = process.stdin.take().ok_or("no way to write to Python")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no way to read from Python")?);
        Ok(Self { process, jobs, answers })
    }

    /// Seconds that a job takes there.
    fn ask(&mut self, job: &impl Serialize) -> std::result::Result<f64, Box<dyn Error>> {
        writeln!(self.jobs, "{}", serde_json::to_string(job)?)?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        // torch's threads spin for a while after their work; ours should not pay for that.
        thread::sleep(Duration::from_millis(20));
        answer.trim().parse().map_err(|_| format!("Python answered {answer:?}").into())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Prints rows of (name, our seconds, torch's seconds).
#[expect(clippy::print_stdout, reason = "a benchmark's output is its table")]
fn table(rows: &[(String, f64, f64)], with_head: bool) {
    if with_head {
        println!("{:<78} {:>10} {:>10} {:>7}", "layer", "ours (ms)", "torch (ms)", "ratio");
    }
    for (name, ours, torch) in rows {
        println!("{name:<78} {:>10.3} {:>10.3} {:>7.2}", ours * 1e3, torch * 1e3, ours / torch);
    }
}

/// The rows that are slower than torch by more than the target allows.
#[expect(clippy::print_stdout, reason = "a benchmark's output is its table")]
fn summary(rows: &[(String, f64, f64)]) {
    const TARGET: f64 = 1.15;
    let slow: Vec<_> = rows.iter().filter(|(_, ours, torch)| ours / torch > TARGET).cloned().collect();
    println!("\n{} of {} within {TARGET} of torch", rows.len() - slow.len(), rows.len());
    table(&slow, false);
}
