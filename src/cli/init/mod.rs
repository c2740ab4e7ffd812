//! `laptop-diff init`: writes a commented pipeline that fits a model.

mod template;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::output::{note, print};
use super::target;
use crate::base::{FileError, files};
use crate::config::PipelineFile;
use crate::model::{ModelDirectory, Part};
use crate::plan::ResolvedPipeline;
use crate::survey::{Depth, survey_directory};
use template::{Preset, Template};

/// The prompts that come with the program.
const PROMPTS: [(&str, &str); 3] = [
    ("calibration.txt", include_str!("../../../pipelines/prompts/calibration.txt")),
    ("training.txt", include_str!("../../../pipelines/prompts/training.txt")),
    ("evaluation.txt", include_str!("../../../pipelines/prompts/evaluation.txt")),
];

/// Write a commented pipeline that fits a model: score, select, prune, retrain, evaluate, export
#[derive(Args)]
#[command(after_help = "\
The numbers are those of the pipelines that come with laptop-diff, for SD 1.x and 2.x, SDXL or a small model. The prompts are
written into prompts/ beside the pipeline, unless files of these names are there already.

Examples:
  laptop-diff init models/stable-diffusion-v1-5
  laptop-diff init /models/sdxl-base-1.0 --out pipelines/my-sdxl.yaml
  laptop-diff plan stable-diffusion-v1-5.yaml")]
pub(super) struct Init {
    /// The folder of a diffusers model
    model: PathBuf,
    /// The pipeline file to write [default: the model's name with .yaml, in the current folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Init {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let (survey, _) = survey_directory(&self.model, None, Depth::Headers)?;
        let survey = survey.or_refusal()?;
        for part in [Part::Tokenizer, Part::TextEncoder, Part::UNet, Part::Vae, Part::Scheduler] {
            if !survey.is_usable(part) {
                return Err(CliError::ModelPart { model: self.model, part: part.folder() });
            }
        }
        let unet = ModelDirectory::open(&self.model)?.unet_config()?;
        let preset = Preset::of(survey.is_usable(Part::TextEncoder2), unet.inventory().parameters());
        let name = name(&self.model)?;
        let out = self.out.unwrap_or_else(|| PathBuf::from(format!("{name}.yaml")));
        target::new(&out)?;
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let template = Template { name: &name, model: &seen_from(&self.model, folder)?, preset };
        let text = template.text(&self.model);
        // A pipeline that this program refuses is not written.
        let checked = PipelineFile::parse(&out, &text, &[]).and_then(ResolvedPipeline::new);
        checked.unwrap_or_else(|error| panic!("BUG: the pipeline of `init` is wrong: {error}"));
        for (file, prompts) in PROMPTS.iter().filter(|_| !template::has_prompts(&self.model)) {
            let path = folder.join("prompts").join(file);
            if !path.exists() {
                files::write_atomic(&path, prompts.as_bytes()).map_err(FileError::at(&path))?;
            }
        }
        files::write_atomic(&out, text.as_bytes()).map_err(FileError::at(&out))?;
        note(&format!(
            "`laptop-diff plan {0}` shows what it would do, `laptop-diff doctor {0}` whether it fits here",
            out.display()
        ));
        print(&format!("{}\n", out.display()))
    }
}

/// The last part of the model's path, in letters that a name of a run may have.
fn name(model: &Path) -> Result<String, CliError> {
    let full = fs::canonicalize(model).map_err(FileError::at(model))?;
    let last = full.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy());
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '-' };
    Ok(last.chars().map(plain).collect())
}

/// A path as a pipeline in `folder` would name it.
fn seen_from(path: &Path, folder: &Path) -> Result<PathBuf, CliError> {
    if path.is_absolute() || folder == Path::new(".") {
        return Ok(path.to_owned());
    }
    Ok(fs::canonicalize(path).map_err(FileError::at(path))?)
}
