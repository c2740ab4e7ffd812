//! The models that both sides of a benchmark of whole U-Nets read.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

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
