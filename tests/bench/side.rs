//! What the benchmarks share: their arguments, and how the Python side is started.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::Command;

use candle_core::Device;
use clap::{Parser, ValueEnum};
use laptop_diff::backend::{DeviceChoice, Dtype, threads};

/// Measures this program against torch on the same machine, in one run.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// A Python with torch and diffusers; `tests/diffusers/requirements.txt` says which
    #[arg(long, env = "LAPTOP_DIFF_TEST_PYTHON", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// How many threads each side computes with
    #[arg(long, default_value = "2")]
    pub(crate) threads: NonZeroUsize,
    /// Where both sides compute: cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: DeviceChoice,
    /// In what type: f32, f16 or bf16
    #[arg(long, default_value = "f32", value_parser = dtype)]
    pub(crate) dtype: Dtype,
    /// Also measure these (the whole U-Net only), where they can do what a line asks
    #[arg(long, value_delimiter = ',')]
    pub(crate) peers: Vec<Peer>,
    /// Only the lines that contain one of these words
    pub(crate) only: Vec<String>,
    /// What cargo gives to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured beside torch as it is.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// `torch.compile`
    Compile,
    /// OpenVINO, forward on a processor
    Openvino,
}

fn dtype(text: &str) -> Result<Dtype, String> {
    serde_json::from_value(text.into()).map_err(|_| format!("`{text}` is none of f32, f16, bf16"))
}

impl Arguments {
    /// Reads the command line and starts the threads.
    pub(crate) fn parse() -> Self {
        let arguments = <Self as Parser>::parse();
        threads::start(Some(arguments.threads.get())).expect("the system has threads to give");
        arguments
    }

    pub(crate) fn open(&self) -> candle_core::Result<Device> {
        self.device.open()
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
