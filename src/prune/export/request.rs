//! Exports a model for another program, and records how the result differs.

use std::io;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::check::compute_dtype;
use super::error::ExportError;
use super::format::Format;
use super::layer_names::LayerNames;
use super::lora::{Fitting, Lora, RenamedLora};
use super::{assumed, check, single_file};
use crate::base::unfinished::Unfinished;
use crate::base::{FileError, UnitId, copies, files};
use crate::model::unet::Assembly;
use crate::model::{Checkpoint, ModelDirectory, Part, UNet, UNetConfig, Weights};
use crate::prune::container::Container;
use crate::prune::directory;
use crate::prune::remap::{self, Remap};

/// The record in an artefact's folder, beside the exported model.
const FILE: &str = "export.json";

/// What to export, and how.
#[derive(Clone, Copy)]
pub struct ExportRequest<'a> {
    /// The model.
    pub model: &'a ModelDirectory,
    /// The target format.
    pub format: &'static Format,
    /// The type of the weights; by default each keeps its type.
    pub dtype: Option<DType>,
    /// Whether to write the file even if the target program does not support these widths.
    pub allow_unrecognised: bool,
    /// LoRAs of the model before pruning, to be renamed and written beside the export. The new files must not exist.
    pub loras: &'a [Lora<'a>],
}

/// What was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Export {
    /// The name of the format.
    pub format: String,
    /// The folder or file.
    pub path: PathBuf,
    /// Parameters of the exported U-Net.
    pub parameters: u64,
    /// Parameters of the written U-Net, padding included.
    pub written_parameters: u64,
    /// Units of zeros that the program requires; a Transformer2D is listed without its blocks.
    pub padded: Vec<UnitId>,
    /// Other parts that were written too: all of the model's, or, in a single file, those that a checkpoint can contain.
    pub parts: Vec<String>,
    /// Relative L2 distance between the predictions of the written U-Net and the exported one.
    pub relative_error: f64,
    /// The table of renamed layers, for LoRAs; none if all keep their names.
    pub remap: Option<PathBuf>,
    /// The LoRAs that were renamed.
    pub loras: Vec<RenamedLora>,
    /// Why the program does not support this U-Net, if it was written even so.
    pub unrecognised: Option<String>,
}

impl Export {
    /// Reads `export.json` from an artefact's folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        files::read_json(&folder.join(FILE))
    }

    /// Writes `export.json` into `folder`.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        files::write_json(&folder.join(FILE), self)
    }
}

impl ExportRequest<'_> {
    /// Writes to `path` (a folder, or a file for a single-file format), reads it back and compares predictions.
    /// `path` must not exist before, and does not exist after an error.
    pub fn write(&self, path: &Path) -> Result<Export, ExportError> {
        let Self { model, format, allow_unrecognised, .. } = *self;
        let pruned = model.unet_config()?;
        if let Some(unit) = pruned.linear_units.first().filter(|_| format.container != Container::Code) {
            return Err(ExportError::LinearMap { unit: unit.clone(), format: format.name });
        }
        let assembly = format.assemble(&pruned);
        let unsupported = format.unrecognised(&pruned);
        let misread = match (format.program, &assembly) {
            (Some(program), Some(assembly)) => assumed::misread(program, model, assembly)?,
            _ => None,
        };
        let recognised = unsupported.is_none();
        let reasons: Vec<String> = unsupported.into_iter().chain(misread).collect();
        let unrecognised = (!reasons.is_empty()).then(|| reasons.join("; "));
        if let Some(reason) = unrecognised.clone().filter(|_| !allow_unrecognised) {
            return Err(ExportError::Unrecognised { reason });
        }
        let assembly = assembly.ok_or(ExportError::NoTarget { format: format.name })?;
        let table = self.table(&assembly)?;
        // Before the model is written, which takes longer.
        let loras = self.fitting(&table, &assembly)?;
        // A broken export must not be mistaken for the model, so it gets its name last.
        let unfinished = Unfinished::begin(path).map_err(FileError::at(path))?;
        let place = unfinished.place();
        let (parts, relative_error) =
            self.written(&assembly, recognised, &place).map_err(|error| match error {
                ExportError::SelfCheck { error, allowed, .. } => {
                    ExportError::SelfCheck { path: path.to_owned(), error, allowed }
                }
                other => other,
            })?;
        let renames = self.save_remap(&table, &place)?;
        let loras = loras.into_iter().map(|lora| lora.write(&place, path)).collect::<Result<_, _>>()?;
        unfinished.finish().map_err(FileError::at(path))?;
        let inside = |unit: &UnitId| {
            let parent = unit.as_str().split_once(".transformer_blocks.").map(|(parent, _)| parent);
            parent.is_some_and(|parent| assembly.padded().contains(parent))
        };
        Ok(Export {
            format: format.name.to_owned(),
            path: path.to_owned(),
            parameters: pruned.inventory().parameters(),
            written_parameters: assembly.config().inventory().parameters(),
            padded: assembly.padded().iter().filter(|unit| !inside(unit)).cloned().collect(),
            parts: parts.into_iter().map(|part| part.folder().to_owned()).collect(),
            relative_error,
            remap: renames.then(|| self.remap_place(path)),
            loras,
            unrecognised,
        })
    }

    /// Writes and checks. Returns the other parts written and the relative error.
    fn written(
        &self,
        assembly: &Assembly,
        recognised: bool,
        path: &Path,
    ) -> Result<(Vec<Part>, f64), ExportError> {
        let Self { model, format, dtype, .. } = *self;
        // Their predictions could not be compared, and nobody can use them.
        model.unet_weights()?.check_finite()?;
        let stored = dtype.map(Dtype::try_from).transpose().map_err(candle_core::Error::wrap)?;
        let parts = match format.container {
            Container::SingleFile => single_file::write(model, assembly, stored, path)?,
            container => {
                directory::write(model, assembly, container, stored, copies::copy, path)?;
                let parts = Part::ALL.into_iter().filter(|part| *part != Part::UNet && model.has(*part));
                parts.collect()
            }
        };
        if dtype.is_some() {
            // The prediction only checks the U-Net.
            self.written_weights(&parts, path)?.iter().try_for_each(Weights::check_finite)?;
        }
        let relative_error = check::relative_error(
            || Ok(model.unet(compute_dtype(&model.unet_weights()?), &Device::Cpu)?),
            || match format.container {
                Container::SingleFile if recognised => {
                    let checkpoint = Checkpoint::open(path)?;
                    let dtype = compute_dtype(&checkpoint.unet_weights());
                    Ok(checkpoint.unet(dtype, &Device::Cpu)?)
                }
                Container::SingleFile => by_its_names(path, assembly.config()),
                Container::Directory | Container::Code => {
                    let written = ModelDirectory::open(path)?;
                    Ok(written.unet(compute_dtype(&written.unet_weights()?), &Device::Cpu)?)
                }
            },
        )?;
        let allowed = allowed(dtype);
        if relative_error.is_nan() || relative_error > allowed {
            return Err(ExportError::SelfCheck { path: path.to_owned(), error: relative_error, allowed });
        }
        Ok((parts, relative_error))
    }

    /// The weights of all written parts.
    fn written_weights(&self, parts: &[Part], path: &Path) -> Result<Vec<Weights>, ExportError> {
        if self.format.container == Container::SingleFile {
            return Ok(vec![Weights::open(path)?]);
        }
        let written = ModelDirectory::open(path)?;
        let with_weights = [Part::Vae, Part::TextEncoder, Part::TextEncoder2];
        let others = parts.iter().filter(|part| with_weights.contains(part));
        let others = others.map(|part| Ok(Weights::open(&written.folder(*part)?)?));
        [Ok(written.unet_weights()?)].into_iter().chain(others).collect()
    }

    /// The new names of the layers, from those that the model had before any pruning.
    fn table(&self, assembly: &Assembly) -> Result<Remap, ExportError> {
        let folder = self.model.path();
        let earlier = Remap::of_model(folder).map_err(FileError::at(folder))?;
        let table = Remap::new(&self.model.unet_config()?, assembly, self.format.container);
        Ok(table.after(earlier.unwrap_or_default()))
    }

    /// The LoRAs with their new names.
    fn fitting<'a>(&'a self, table: &Remap, assembly: &Assembly) -> Result<Vec<Fitting<'a>>, ExportError> {
        let names = LayerNames::new(table, assembly.config(), self.format.container);
        self.loras.iter().map(|lora| Fitting::new(lora, &names, assembly.config())).collect()
    }

    /// Writes the table for LoRAs beside the export if any layer was renamed, and says whether one was.
    fn save_remap(&self, table: &Remap, path: &Path) -> Result<bool, ExportError> {
        if table.renames() {
            let path = self.remap_place(path);
            table.save(&path).map_err(FileError::at(&path))?;
        }
        Ok(table.renames())
    }

    /// The path of the table of an export at `path`.
    fn remap_place(&self, path: &Path) -> PathBuf {
        let single = self.format.container == Container::SingleFile;
        if single { remap_beside(path) } else { path.join(remap::FILE) }
    }
}

/// `student.lora-remap.json` for `student.safetensors`.
pub fn remap_beside(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".safetensors").unwrap_or(&name);
    file.with_file_name(format!("{stem}.{}", remap::FILE))
}

/// The U-Net of a file whose shape cannot be recognised from the file alone.
fn by_its_names(path: &Path, config: &UNetConfig) -> Result<UNet, ExportError> {
    let weights = Checkpoint::weights_of(path, config)?;
    Ok(UNet::load(config.clone(), &weights, compute_dtype(&weights), &Device::Cpu)?)
}

/// The largest relative error that rounding explains. Without a change of type nothing is rounded. Each weight in f16 or bf16
/// is off by 2^-11 or 2^-8, which a U-Net of some fifty layers can amplify a few times.
fn allowed(dtype: Option<DType>) -> f64 {
    match dtype {
        Some(DType::F16) => 1e-2,
        Some(DType::BF16) => 8e-2,
        _ => 1e-4,
    }
}
