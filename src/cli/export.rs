//! `laptop-diff export`: writes a model for another program, and checks it by reading it back.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::output::{print, print_json};
use super::target;
use crate::backend::Dtype;
use crate::base::units;
use crate::model::ModelDirectory;
use crate::prune::{Container, Export, ExportRequest, Format, remap_beside};

/// Write a model for diffusers, ComfyUI or stable-diffusion.cpp, and check the result
#[derive(Args)]
#[command(after_help = "\
Layers that the program requires are padded with zeros; the output says how many
parameters that adds. If layers are renumbered, a table for LoRAs is written too.

Examples:
  laptop-diff export runs/sdxl50/retrained --to comfyui --dtype f16
  laptop-diff export runs/nano50/student --to diffusers --output student")]
pub(super) struct ExportCommand {
    /// A diffusers model directory, whole or pruned
    model: PathBuf,
    /// The target format (`laptop-diff list exports`)
    #[arg(long, value_name = "FORMAT")]
    to: String,
    /// The folder or file to write [default: named after model and format, in this folder]
    #[arg(long)]
    output: Option<PathBuf>,
    /// The type of the weights [default: unchanged]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Write the file even if the target program does not support these widths
    #[arg(long)]
    allow_unrecognised: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ExportCommand {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let format = Format::find(&self.to)?;
        let model = ModelDirectory::open(&self.model)?;
        let path = self.output.clone().unwrap_or_else(|| default_path(&self.model, format));
        let single = format.container == Container::SingleFile;
        if single && path.extension().is_none_or(|extension| extension != "safetensors") {
            return Err(CliError::Extension { path });
        }
        let beside = single.then(|| remap_beside(&path));
        [Some(&path), beside.as_ref()].into_iter().flatten().try_for_each(|path| target::new(path))?;
        let request = ExportRequest {
            model: &model,
            format,
            dtype: self.dtype.map(Into::into),
            allow_unrecognised: self.allow_unrecognised,
        };
        let export = request.write(&path)?;
        if self.json { print_json(&export) } else { print(&shown(&export)) }
    }
}

/// `student-comfyui.safetensors` for `runs/nano50/student`.
fn default_path(model: &Path, format: &Format) -> PathBuf {
    // A stage in a run's folder is a link into the cache, where the name is a digest, so the name as given comes first.
    let canonical = || model.canonicalize().ok()?.file_name().map(ToOwned::to_owned);
    let name = model.file_name().map(ToOwned::to_owned).or_else(canonical);
    let name = name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
    match format.container {
        Container::SingleFile => PathBuf::from(format!("{name}-{}.safetensors", format.name)),
        _ => PathBuf::from(format!("{name}-{}", format.name)),
    }
}

fn shown(export: &Export) -> String {
    let mut text = format!(
        "{}\nU-Net of {} parameters, written as {}",
        export.path.display(),
        units::count(export.parameters),
        units::count(export.written_parameters),
    );
    match export.padded.as_slice() {
        [] => text.push_str(": nothing is padded\n"),
        padded => {
            let cost = export.written_parameters - export.parameters;
            text.push_str(&format!(
                "; {} of them are zeros that pad {} units:\n",
                units::count(cost),
                padded.len()
            ));
            padded.iter().for_each(|unit| text.push_str(&format!("  {unit}\n")));
        }
    }
    text.push_str(&format!("read back and compared: relative error {:.1e}\n", export.relative_error));
    match export.parts.as_slice() {
        [] => text.push_str("only the U-Net: the model has no other parts\n"),
        parts => text.push_str(&format!("with {}\n", parts.join(", "))),
    }
    if let Some(remap) = &export.remap {
        text.push_str(&format!("layers are renumbered; table for LoRAs: {}\n", remap.display()));
    }
    if let Some(reason) = &export.unrecognised {
        text.push_str(&format!("warning: {reason}\n"));
    }
    text
}
