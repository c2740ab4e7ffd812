//! The real diffusers, by `check.py` beside this file.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use laptop_diff::data::Calibration;
use laptop_diff::model::UNet;

/// A python that has imported diffusers and waits for commands.
pub(crate) struct Diffusers {
    python: RefCell<Child>,
    /// diffusers keeps copies of the modules that it runs; ours must be the one just written.
    _modules: tempfile::TempDir,
}

impl Diffusers {
    pub(crate) fn new() -> Self {
        let python = std::env::var("LAPTOP_DIFF_TEST_PYTHON").expect("LAPTOP_DIFF_TEST_PYTHON is set");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diffusers/check.py");
        let modules = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(python);
        command.arg(script).arg("serve").env("HF_HUB_OFFLINE", "1").env("HF_MODULES_CACHE", modules.path());
        let python = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        Self { python: RefCell::new(python), _modules: modules }
    }

    /// Runs a command of `check.py`, which prints why it fails.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&dyn AsRef<OsStr>]) {
        let arguments: Vec<_> =
            arguments.iter().map(|one| one.as_ref().to_str().expect("readable paths")).collect();
        let mut python = self.python.borrow_mut();
        let line = serde_json::to_string(&arguments).expect("a list of texts") + "\n";
        python.stdin.as_mut().expect("a pipe").write_all(line.as_bytes()).expect("python waits for it");
        let mut answer = String::new();
        // One line is asked for and one comes, so nothing is lost in the reader's buffer.
        let output = python.stdout.as_mut().expect("a pipe");
        BufReader::new(output).read_line(&mut answer).expect("python answers");
        assert_eq!(answer.trim(), "ok", "{arguments:?}");
    }
}

impl Drop for Diffusers {
    fn drop(&mut self) {
        // Without input it ends.
        let python = self.python.get_mut();
        drop(python.stdin.take());
        let _ = python.wait();
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
