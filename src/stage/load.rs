//! `load`: imports a model into the pipeline and checks that it is complete.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Computation;
use super::needs::{KnownModel, Needs, Outlook};
use super::{BadValue, Context, Excerpt, FileInput, Input, ResolvedFile, Stage, StageError, StageInfo};
use crate::backend::Dtype;
use crate::base::{ArtefactKind, Manifest, copies, files};
use crate::model::clip::tokenizer_files;
use crate::model::files::contents::ModelFile;
use crate::model::files::hub;
use crate::model::{Checkpoint, ModelDirectory, Prediction, UNetConfig};
use crate::survey::{Depth, model_files, survey_directory, survey_file};

/// The unit of its progress.
const MEGABYTE: u64 = 1_000_000;

/// `with:` of `use: load`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Load {
    /// A diffusers model directory, or a bare U-Net directory (config.json and weights) if no later stage needs more;
    /// a single-file checkpoint (`.safetensors`) in the original layout, as used by ComfyUI and A1111; or, if there
    /// is no such folder, the name of a repository on the Hugging Face hub, such as
    /// `stabilityai/stable-diffusion-xl-base-1.0`. A hub repository needs the feature `hub`, with which the program is built by default.
    /// The files that the model needs are downloaded into the hub's cache, and an interrupted download resumes;
    /// `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` have the same meaning as in Python's
    /// `huggingface_hub`.
    model: PathBuf,
    /// Branch, tag or commit of a repository on the hub. Default `main`. The commit that it refers to enters the key:
    /// a branch that has moved is another model. A full commit hash (40 digits) needs no network to plan.
    revision: Option<String>,
    /// The type in which later stages compute this model. Default `f32`; weights on disk keep their own type.
    #[serde(default)]
    dtype: Dtype,
    /// Uses the weights of this variant, such as `fp16` for `diffusion_pytorch_model.fp16.safetensors`, for each part
    /// that has them; later stages see them under the plain names. Default: full precision.
    variant: Option<String>,
    /// The folder of CLIP's tokenizer (`vocab.json`, `merges.txt`), which a single-file checkpoint does not contain.
    /// Needed if a later stage reads prompts.
    tokenizer: Option<PathBuf>,
    /// What the U-Net of a single-file checkpoint predicts. Default: as stated in the file, else the noise. Needed for a
    /// file of SD 2.x that does not state it: models of 768 pixels predict the velocity, base models of 512 the noise.
    prediction: Option<Prediction>,
}

/// Extensions of files of weights. Those that are not safetensors are refused when they are read, by what they are.
const FILES: [&str; 6] = ["safetensors", "ckpt", "gguf", "pt", "pth", "bin"];

pub(super) const INFO: StageInfo = StageInfo {
    name: "load",
    // 2: only the files of the model, under plain names.
    // 3: a single file's last text layer is left out only where it is not read; added tokens are kept.
    version: 3,
    summary: "imports a model: a diffusers directory, a single file, or a repository on the hub",
    output: ArtefactKind::Model,
    seeded: false,
    computes: false,
    schema: |generator| Load::json_schema(generator),
};

impl Stage for Load {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest.field("dtype", self.dtype);
        if let Some(variant) = &self.variant {
            manifest.field("variant", variant);
        }
        match self.prediction {
            Some(Prediction::Epsilon) => drop(manifest.field("prediction", "epsilon")),
            Some(Prediction::VPrediction) => drop(manifest.field("prediction", "v_prediction")),
            None => {}
        }
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        Vec::new()
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        let revision = Some(self.revision.as_deref().unwrap_or("main"));
        let reader = |path: &Path| match path.is_file() {
            true => Ok(Excerpt::everything()),
            false => {
                let files = model_files(path, self.variant.as_deref())?;
                Ok(Excerpt::files(files.into_iter().map(|file| file.from).collect()))
            }
        };
        let model = FileInput { revision, ..FileInput::part("model", &self.model, reader) };
        let tokenizer = self.tokenizer.iter().map(|path| {
            FileInput::part("tokenizer", path, |folder| Ok(Excerpt::files(tokenizer_files(folder))))
        });
        [model].into_iter().chain(tokenizer).collect()
    }

    fn check(&self) -> Result<(), BadValue> {
        let single_file =
            self.model.extension().is_some_and(|extension| FILES.iter().any(|file| extension == *file));
        let of_files = [("tokenizer", self.tokenizer.is_some()), ("prediction", self.prediction.is_some())];
        let of_folders = [("variant", self.variant.is_some())];
        for (of, wrong) in [(of_files.as_slice(), !single_file), (of_folders.as_slice(), single_file)] {
            if let Some((name, _)) = of.iter().find(|(_, given)| *given && wrong) {
                let (is, not) =
                    if single_file { ("a file", "folders") } else { ("not a file", "single files") };
                let message = format!("`model` is {is}, but `{name}` is for {not}");
                return Err(BadValue::new(*name, message));
            }
        }
        let Some(revision) = &self.revision else { return Ok(()) };
        let bad = |message| Err(BadValue::new("revision", message));
        if !hub::is_revision(revision) {
            return bad(format!("`revision` is `{revision}`, which cannot be a branch, tag or commit"));
        }
        if !self.model.to_str().is_some_and(hub::is_id) {
            let model = self.model.display();
            return bad(format!(
                "`revision` needs a repository such as owner/name, but `model` is the path {model}"
            ));
        }
        Ok(())
    }

    fn unet_of_files(&self, files: &BTreeMap<String, ResolvedFile>) -> Option<UNetConfig> {
        let path = files.get("model")?.path()?;
        match path.is_file() {
            true => Some(Checkpoint::open(path).ok()?.unet_config().clone()),
            false => ModelDirectory::open(path).ok()?.unet_config().ok(),
        }
    }

    fn model_of_files(&self, files: &BTreeMap<String, ResolvedFile>) -> Option<KnownModel> {
        let unet = self.unet_of_files(files)?;
        let path = files.get("model")?.path()?;
        let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        let (vae, weights, bytes) = match path.is_file() {
            true => (None, Checkpoint::open(path).ok().map(|file| file.unet_weights()), size(path)),
            false => {
                let directory = ModelDirectory::open(path).ok()?;
                let files = model_files(path, self.variant.as_deref()).unwrap_or_default();
                let bytes = files.iter().map(|file| size(&path.join(&file.from))).sum();
                (directory.vae_config().ok(), directory.unet_weights().ok(), bytes)
            }
        };
        let dtype = self.dtype.into();
        // All tensors of a file have one type, but for some that are small.
        let first = weights.as_ref().and_then(|weights| weights.dtype(weights.names().next()?).ok());
        Some(KnownModel { unet, vae, dtype, stored: first.unwrap_or(dtype), bytes })
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        // The model that it loads stands under its own parameter.
        outlook.models.get("model").map(|model| Needs { disk: model.bytes, ..Needs::default() })
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let source = &match context.source("model") {
            ResolvedFile::Path(path) if path.is_file() => {
                self.take_apart(path, context)?;
                return Computation { dtype: self.dtype }.save(context.output);
            }
            ResolvedFile::Path(path) => path.clone(),
            ResolvedFile::Missing(missing) => panic!("BUG: a stage runs without {}", missing.what),
            ResolvedFile::Repository(pinned) => {
                hub::download(pinned, self.variant.as_deref(), context.progress, context.interrupt)?
            }
        };
        let (survey, files) = survey_directory(source, self.variant.as_deref(), Depth::Weights)?;
        survey.or_refusal()?.notes.iter().for_each(|note| context.progress.note(note));
        copy(source, &files, context)?;
        Computation { dtype: self.dtype }.save(context.output)
    }
}

impl Load {
    /// Converts a single file to a diffusers directory.
    fn take_apart(&self, file: &Path, context: &Context<'_>) -> Result<(), StageError> {
        let checkpoint = Checkpoint::open(file)?;
        checkpoint.prediction(self.prediction)?;
        let tokenizer = self.tokenizer.as_ref().map(|_| context.file("tokenizer"));
        let survey = survey_file(&checkpoint, tokenizer, Depth::Weights)?;
        survey.or_refusal()?.notes.iter().for_each(|note| context.progress.note(note));
        checkpoint.save(context.output, self.prediction, tokenizer)?;
        if tokenizer.is_none() {
            context
                .progress
                .note("the file contains no tokenizer: stages that read prompts need `tokenizer`");
        }
        Ok(())
    }
}

/// Copies the files, so that neither an edit of the user's model changes the artefact, nor the other way round.
fn copy(source: &Path, files: &[ModelFile], context: &Context<'_>) -> Result<(), StageError> {
    let mut bytes = 0;
    for file in files {
        let path = source.join(&file.from);
        bytes += fs::metadata(&path).map_err(StageError::file(&path))?.len();
    }
    context.progress.length(bytes.div_ceil(MEGABYTE), "MB");
    let mut done = 0;
    let mut copied = |bytes| {
        done += bytes;
        context.progress.position(u64::div_ceil(done, MEGABYTE));
        context.interrupt.check().map_err(|_| io::ErrorKind::Interrupted.into())
    };
    for file in files {
        let (from, to) = (source.join(&file.from), context.output.join(&file.to));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(StageError::file(folder))?;
        }
        copies::copy_in_pieces(&from, &to, &mut copied).map_err(|error| match context.interrupt.check() {
            Err(interrupted) => interrupted.into(),
            // A full disk is not the fault of the source.
            Ok(()) if files::is_full(&error) => StageError::file(&to)(error),
            Ok(()) => StageError::file(&from)(error),
        })?;
    }
    Ok(())
}
