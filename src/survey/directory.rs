//! The survey of a diffusers directory, or of the folder of a bare U-Net.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::SurveyError;
use super::fit::{self, Configs};
use super::parts::Parts;
use super::{Depth, State, Survey};
use crate::base::{FileError, files};
use crate::model::files::contents::{self, INDEX, ModelFile};
use crate::model::{Checkpoint, ModelDirectory, ModelError, Part};

/// Keys of an index that are no parts, and parts that do not take part in drawing.
const NO_PART: &[&str] = &["feature_extractor", "safety_checker"];

/// Opens a model's folder. Fails if it is none; if it has only one file of weights, the error says what that file is.
pub fn open(path: &Path) -> Result<ModelDirectory, SurveyError> {
    ModelDirectory::open(path).map_err(|error| lone_file(path).unwrap_or(error.into()))
}

/// Opens every part of the model in `path`, with the weights of `variant` where there are any. Returns the survey and the
/// files that make up the model. Fails if the folder is no such model at all.
pub fn survey_directory(
    path: &Path,
    variant: Option<&str>,
    depth: Depth,
) -> Result<(Survey, Vec<ModelFile>), SurveyError> {
    let index = index_of(path)?;
    let directory = open(path)?;
    if let (false, Some(class)) = (directory.has(Part::UNet), class_of(index.as_ref())) {
        return Err(SurveyError::Pipeline { path: path.to_owned(), class });
    }
    let files = chosen(path, index.as_ref(), variant)?;
    let parts = Parts { directory: &directory, files: &files, depth };
    let (mut states, mut notes) = (Vec::new(), Vec::new());
    for part in Part::ALL {
        let state = match directory.has(part) {
            false => State::Absent,
            true => match parts.open(part) {
                Ok(unread) => {
                    notes.extend(unread);
                    State::Usable
                }
                Err(error) => State::Refused(Box::new(error)),
            },
        };
        states.push((part, state));
    }
    notes.extend(index.as_ref().and_then(|index| unread_parts(path, index)));
    let mut survey = Survey { parts: states, notes };
    let configs = configs(&survey, &directory)?;
    if let Some(unet) = &configs.unet {
        fit::check_refiner(&survey, unet, path)?;
    }
    fit::check(&mut survey, &configs, path);
    Ok((survey, files))
}

/// The files that make up the model in `path`, which is not checked.
pub fn model_files(path: &Path, variant: Option<&str>) -> Result<Vec<ModelFile>, SurveyError> {
    chosen(path, index_of(path)?.as_ref(), variant)
}

fn chosen(
    path: &Path,
    index: Option<&Map<String, Value>>,
    variant: Option<&str>,
) -> Result<Vec<ModelFile>, SurveyError> {
    let paths = contents::list(path).map_err(FileError::at(path))?;
    Ok(contents::choose(&paths, index, variant)?)
}

/// What the usable parts are.
fn configs(survey: &Survey, directory: &ModelDirectory) -> Result<Configs, ModelError> {
    let mut configs = Configs::default();
    for part in Part::ALL.into_iter().filter(|part| survey.is_usable(*part)) {
        match part {
            Part::UNet => configs.unet = Some(directory.unet_config()?),
            Part::Vae => configs.vae = Some(directory.vae_config()?),
            Part::TextEncoder | Part::TextEncoder2 => {
                configs.text.push((part, directory.text_config(part)?));
            }
            Part::Tokenizer | Part::Tokenizer2 => configs.tokenizers.push((part, directory.tokenizer(part)?)),
            Part::Scheduler => {}
        }
    }
    Ok(configs)
}

/// What to say of a folder that is no model, if it contains one file of weights: what that file is.
fn lone_file(path: &Path) -> Option<SurveyError> {
    let names = contents::list(path).ok()?;
    let is_seen = |name: &&String| !name.starts_with('.') && !name.contains('/');
    let mut files = names.iter().filter(is_seen).filter(|name| name.ends_with(".safetensors"));
    let (file, None) = (path.join(files.next()?), files.next()) else { return None };
    Some(match Checkpoint::open(&file) {
        Ok(_) => SurveyError::LoneFile { path: path.to_owned(), file },
        Err(error) => error.into(),
    })
}

fn index_of(path: &Path) -> Result<Option<Map<String, Value>>, SurveyError> {
    let index = path.join(INDEX);
    match index.is_file() {
        true => Ok(Some(files::read_json(&index).map_err(FileError::at(&index))?)),
        false => Ok(None),
    }
}

/// The pipeline's class in diffusers.
fn class_of(index: Option<&Map<String, Value>>) -> Option<String> {
    index?.get("_class_name")?.as_str().map(str::to_owned)
}

/// A note on folders that the index names and nothing reads, such as an image encoder.
fn unread_parts(path: &Path, index: &Map<String, Value>) -> Option<String> {
    let known = |name: &str| Part::ALL.iter().any(|part| part.folder() == name) || NO_PART.contains(&name);
    // An absent part is `[null, null]`.
    let is_part =
        |value: &Value| value.as_array().is_some_and(|pair| pair.iter().any(|name| !name.is_null()));
    let unread =
        index.iter().filter(|(name, value)| is_part(value) && !known(name) && path.join(name).is_dir());
    let names: Vec<String> = unread.map(|(name, _)| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| format!("parts of the pipeline that are not read: {}", names.join(", ")))
}
