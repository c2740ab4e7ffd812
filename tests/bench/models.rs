//! What the benchmarks of whole U-Nets share: the models that both sides read, and what the Python side answers.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;

use crate::side::root;

/// The folder of a model's U-Net. The small model is the repository's; others are made on first use by the script that
/// `make` gives, which is told the folder.
pub(crate) fn model(name: &str, make: impl FnOnce() -> Command) -> Result<PathBuf, Box<dyn Error>> {
    let folder = root().join("target/bench").join(name);
    if folder.join("unet/config.json").is_file() {
        return Ok(folder);
    }
    std::fs::create_dir_all(folder.join("unet"))?;
    if name == "nano" {
        for entry in std::fs::read_dir(root().join("examples/nano-sd/unet"))? {
            let entry = entry?;
            std::fs::copy(entry.path(), folder.join("unet").join(entry.file_name()))?;
        }
        return Ok(folder);
    }
    if !make().arg("--folder").arg(&folder).status()?.success() {
        return Err(format!("diffusers could not make {}", folder.display()).into());
    }
    Ok(folder)
}

/// What a process says on the last line that it prints, as JSON.
pub(crate) fn answer<T: DeserializeOwned>(mut command: Command) -> Result<T, Box<dyn Error>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|_| format!("{command:?} ended with {}: {text}", output.status).into())
}
