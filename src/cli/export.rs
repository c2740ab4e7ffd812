//! `laptop-diff export`: writes a model for another program, and checks it by reading it back.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::output::{print, print_json};
use super::subject::Subject;
use super::target;
use crate::backend::Dtype;
use crate::base::units;
use crate::prune::{Container, Export, ExportRequest, Format, Lora, RenamedLora, remap_beside};
use crate::survey;

/// Write a model for diffusers, ComfyUI or stable-diffusion.cpp, and check the result
#[derive(Args)]
#[command(after_help = "\
Layers that the program requires are padded with zeros; the output says how many
parameters that adds. If layers are renumbered, a table for LoRAs is written too.
`--lora` renames a LoRA of the original model for the export and leaves out what was
pruned. It takes the names of peft, diffusers and kohya.

Examples:
  laptop-diff export runs/sdxl50/retrained --to comfyui --dtype f16
  laptop-diff export runs/sdxl50/retrained --to comfyui --lora style.safetensors
  laptop-diff export runs/nano50/student --to diffusers --output student")]
pub(super) struct ExportCommand {
    /// A diffusers model directory, whole or pruned, or STAGE@latest in the folder of a run that trains
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
    /// A LoRA of the model before pruning, to be written beside the export under its new names; may be repeated
    #[arg(long, value_name = "FILE")]
    lora: Vec<PathBuf>,
    /// Write the file even if the target program does not support this model, or would sample it wrongly
    #[arg(long)]
    allow_unrecognised: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ExportCommand {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let format = Format::find(&self.to)?;
        let subject = Subject::open(&self.model)?;
        let model = survey::open(subject.path())?;
        let path = self.output.clone().unwrap_or_else(|| default_path(&self.model, format));
        let single = format.container == Container::SingleFile;
        if single && path.extension().is_none_or(|extension| extension != "safetensors") {
            return Err(CliError::Extension { path });
        }
        let loras: Vec<Lora<'_>> =
            self.lora.iter().map(|from| Lora { from, name: name_beside(&path, from) }).collect();
        let beside = single.then(|| remap_beside(&path));
        let mut written: Vec<PathBuf> = [Some(path.clone()), beside].into_iter().flatten().collect();
        for lora in &loras {
            let to = path.with_file_name(&lora.name);
            if written.contains(&to) {
                return Err(CliError::SameName { path: to });
            }
            written.push(to);
        }
        written.iter().try_for_each(|path| target::new(path))?;
        let request = ExportRequest {
            model: &model,
            format,
            dtype: self.dtype.map(Into::into),
            allow_unrecognised: self.allow_unrecognised,
            loras: &loras,
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

/// `style-for-student-comfyui.safetensors`, beside `student-comfyui.safetensors`.
fn name_beside(export: &Path, lora: &Path) -> String {
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_suffix(".safetensors").map_or(name.clone(), ToOwned::to_owned)
    };
    format!("{}-for-{}.safetensors", name(lora), name(export))
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
    export.loras.iter().for_each(|lora| text.push_str(&shown_lora(lora)));
    if let Some(reason) = &export.unrecognised {
        text.push_str(&format!("warning: {reason}\n"));
    }
    text
}

/// Layers that were pruned are listed up to this many; `--json` has them all.
const PRUNED_SHOWN: usize = 20;

fn shown_lora(lora: &RenamedLora) -> String {
    let mut text =
        format!("{}\nLoRA of {} layers, {} of them renamed", lora.path.display(), lora.layers, lora.renamed);
    match lora.pruned.len() {
        0 => text.push('\n'),
        count => text.push_str(&format!("; {count} were pruned away and are left out:\n")),
    }
    lora.pruned.iter().take(PRUNED_SHOWN).for_each(|layer| text.push_str(&format!("  {layer}\n")));
    if let more @ 1.. = lora.pruned.len().saturating_sub(PRUNED_SHOWN) {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}
