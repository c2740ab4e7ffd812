//! What both benchmarks share: their arguments, the Python process on the other side, and the table.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use candle_core::{DType, Device};
use clap::Parser;
use laptop_diff::backend::{DeviceChoice, Dtype};
use serde::Serialize;

/// Measures this program against torch on the same machine, in one run.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// A Python with torch and diffusers; `tests/diffusers/requirements.txt` says which
    #[arg(long, env = "LAPTOP_DIFF_TEST_PYTHON", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// How many threads each side computes with
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
    /// Where both sides compute: cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: DeviceChoice,
    /// In what type: f32, f16 or bf16
    #[arg(long, default_value = "f32", value_parser = dtype)]
    dtype: Dtype,
    /// Also measure torch.compile (the whole U-Net only)
    #[arg(long)]
    pub(crate) compile: bool,
    /// Only the lines that contain one of these words
    pub(crate) only: Vec<String>,
    /// What cargo gives to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn dtype(text: &str) -> Result<Dtype, String> {
    serde_json::from_value(text.into()).map_err(|_| format!("`{text}` is none of f32, f16, bf16"))
}

impl Arguments {
    /// Reads the command line and starts the threads.
    pub(crate) fn parse() -> Self {
        let arguments = <Self as Parser>::parse();
        rayon::ThreadPoolBuilder::new()
            .num_threads(arguments.threads)
            .build_global()
            .expect("nothing has used the pool yet");
        arguments
    }

    pub(crate) fn open(&self) -> candle_core::Result<Device> {
        self.device.open()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype.into()
    }

    pub(crate) fn dtype_name(&self) -> String {
        self.dtype.to_string()
    }

    /// Whether a line of this name was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    /// A Python script of this folder, with the settings that both sides share.
    pub(crate) fn script(&self, file: &str) -> Command {
        let mut command = Command::new(&self.python);
        let device = match self.device {
            DeviceChoice::Auto => "cpu".to_owned(),
            choice => choice.to_string(),
        };
        command.arg(root().join("tests/bench").join(file)).args([
            "--threads",
            &self.threads.to_string(),
            "--device",
            &device,
            "--dtype",
            &self.dtype.to_string(),
        ]);
        command
    }
}

/// The repository: cargo says where, and without it a benchmark is started there.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from)
}

/// A Python process that answers jobs, one a line.
pub(crate) struct Peer {
    process: Child,
    jobs: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn start(arguments: &Arguments, script: &str) -> Result<Self, Box<dyn Error>> {
        let mut command = arguments.script(script);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| {
            format!("cannot start {}: {error}; give --python", arguments.python.display())
        })?;
        let jobs = process.stdin.take().ok_or("no way to write to Python")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no way to read from Python")?);
        Ok(Self { process, jobs, answers })
    }

    /// Seconds that a job takes there.
    pub(crate) fn ask(&mut self, job: &impl Serialize) -> Result<f64, Box<dyn Error>> {
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
pub(crate) fn table(rows: &[(String, f64, f64)], with_head: bool) {
    if with_head {
        println!("{:<78} {:>10} {:>10} {:>7}", "layer", "ours (ms)", "torch (ms)", "ratio");
    }
    for (name, ours, torch) in rows {
        println!("{name:<78} {:>10.3} {:>10.3} {:>7.2}", ours * 1e3, torch * 1e3, ours / torch);
    }
}

/// The rows that are slower than torch by more than the target allows.
#[expect(clippy::print_stdout, reason = "a benchmark's output is its table")]
pub(crate) fn summary(rows: &[(String, f64, f64)]) {
    const TARGET: f64 = 1.15;
    let slow: Vec<_> = rows.iter().filter(|(_, ours, torch)| ours / torch > TARGET).cloned().collect();
    println!("\n{} of {} within {TARGET} of torch", rows.len() - slow.len(), rows.len());
    table(&slow, false);
}
