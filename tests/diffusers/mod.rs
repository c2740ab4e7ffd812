//! The real diffusers, by `check.py` beside this file.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use laptop_diff::data::Calibration;
use laptop_diff::model::UNet;

/// A python that has diffusers.
pub(crate) struct Diffusers {
    python: String,
    /// diffusers keeps copies of the modules that it runs; ours must be the one just written.
    modules: tempfile::TempDir,
}

impl Diffusers {
    pub(crate) fn new() -> Self {
        Self {
            python: std::env::var("LAPTOP_DIFF_TEST_PYTHON").expect("LAPTOP_DIFF_TEST_PYTHON is set"),
            modules: tempfile::tempdir().expect("a folder"),
        }
    }

    /// Runs a command of `check.py`, and fails with what it printed.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&dyn AsRef<OsStr>]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diffusers/check.py");
        let mut command = Command::new(&self.python);
        command.arg(script).args(arguments.iter().map(|argument| argument.as_ref()));
        command.env("HF_HUB_OFFLINE", "1").env("HF_MODULES_CACHE", self.modules.path());
        let output = command.output().expect("python starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Writes what `unet` predicts at `points`, with the points, for `check.py` to compare with.
pub(crate) fn save_prediction(unet: &UNet, points: &Calibration, file: &Path) -> candle_core::Result<()> {
    let prediction = unet.forward(&points.sample, &points.timestep, &points.conditioning())?;
    let mut tensors = HashMap::from([
        ("sample", points.sample.clone()),
        ("timestep", points.timestep.clone()),
        ("encoder_hidden_states", points.encoder_hidden_states.clone()),
        ("prediction", prediction),
    ]);
    tensors.extend(points.text_embeds.clone().map(|tensor| ("text_embeds", tensor)));
    tensors.extend(points.time_ids.clone().map(|tensor| ("time_ids", tensor)));
    candle_core::safetensors::save(&tensors, file)
}
