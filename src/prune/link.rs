//! The parts that pruning leaves alone: hard links where the file system allows, else copies.

use std::fs;
use std::io;
use std::path::Path;

/// Brings every part but the U-Net, and the licence, from one pipeline's folder to another's. Checkpoints that
/// lie beside the parts, as in many repositories of the hub, hold the whole U-Net and stay behind.
pub(super) fn other_parts(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        let path = from.join(&name);
        let is_part = path.is_dir() && text != "unet" && !text.starts_with('.');
        if is_part || (path.is_file() && text.to_uppercase().starts_with("LICENSE")) {
            link(&path, &to.join(&name))?;
        }
    }
    Ok(())
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            link(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    // The hub's cache holds symbolic links into its blobs: what we link is the blob.
    let file = fs::canonicalize(from)?;
    fs::hard_link(&file, to).or_else(|_| fs::copy(&file, to).map(drop))
}
