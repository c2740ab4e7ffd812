//! Errors of prompts, pictures and calibration files.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::base::{FileError, Interrupted, Percent};
use crate::model::ModelError;
use crate::model::clip::TokenizerError;
use crate::sample::SampleError;

/// Data that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum DataError {
    /// A file could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// A prompt file without prompts.
    #[error("{} contains no prompts", path.display())]
    #[diagnostic(code(data::no_prompts), help("write one prompt per line"))]
    NoPrompts {
        /// The file.
        path: PathBuf,
    },
    /// A text file that is not UTF-8.
    #[error("{}: line {line} is not UTF-8", path.display())]
    #[diagnostic(code(data::not_text), help("save the file as UTF-8"))]
    NotText {
        /// The file.
        path: PathBuf,
        /// Its first bad line, from 1.
        line: usize,
    },
    /// A calibration file that is not safetensors, or is truncated.
    #[error("{} cannot be read as safetensors: {source}", path.display())]
    #[diagnostic(code(data::damaged), help("create or copy it again"))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: candle_core::Error,
    },
    /// A calibration file lacks a tensor.
    #[error("{} has no tensor `{tensor}`", path.display())]
    #[diagnostic(
        code(data::missing_tensor),
        help(
            "a calibration file contains sample, noise, timestep and encoder_hidden_states; for SDXL also text_embeds and time_ids"
        )
    )]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
    },
    /// A tensor of the wrong shape.
    #[error("{}: `{tensor}` has shape {found:?}; {needed} is needed", place.display())]
    #[diagnostic(
        code(data::shape),
        help(
            "create the file again: the first dimension of every tensor counts the points, in the same order"
        )
    )]
    Shape {
        /// The file, or where the tensor came from.
        place: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        needed: String,
    },
    /// Data of another model.
    #[error("{}: `{tensor}` has shape {found:?}, but this U-Net needs {needed}", place.display())]
    #[diagnostic(
        code(data::fit),
        help("the data was made with another model: make it with the one that it is used with")
    )]
    Fit {
        /// The file, or where the tensor came from.
        place: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The size that the U-Net reads, and what it counts.
        needed: String,
    },
    /// A tensor of the wrong type.
    #[error("{}: `{tensor}` is of type {found}; {needed} is needed", place.display())]
    #[diagnostic(code(data::dtype), help("convert `{tensor}` and save the file again"))]
    Dtype {
        /// The file, or where the tensor came from.
        place: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// Its type.
        found: &'static str,
        /// The type it should have.
        needed: &'static str,
    },
    /// A NaN, an infinity, or a timestep below zero.
    #[error("{}: `{tensor}` holds {found} at point {point}", place.display())]
    #[diagnostic(code(data::bad_value), help("remove the point, or create the file again"))]
    BadValue {
        /// The file, or where the tensor came from.
        place: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// The value.
        found: String,
        /// The first point with a bad value.
        point: usize,
    },
    /// A part of the model gave a NaN or an infinity.
    #[error("the model's `{part}` gives {found} for {of}")]
    #[diagnostic(
        code(data::not_finite),
        help(
            "it overflows, or its weights are broken: load the model with `dtype: f32` or `bf16`, or copy the part again"
        )
    )]
    NotFinite {
        /// The folder of the part.
        part: &'static str,
        /// The first such number.
        found: f32,
        /// What it was given: a prompt, or a picture.
        of: String,
    },
    /// Training data whose files are inconsistent.
    #[error("{}: {reason}", path.display())]
    #[diagnostic(code(data::latents), help("run the `encode` stage again with `--force`"))]
    Latents {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A source without samples.
    #[error("{} contains no samples{}", path.display(), if notes.is_empty() { String::new() } else { format!("; {notes}") })]
    #[diagnostic(
        code(data::no_samples),
        help("PNG, JPEG or WebP pictures with captions are needed: examples/data.md shows the layouts")
    )]
    NoSamples {
        /// The source.
        path: PathBuf,
        /// What else lies there.
        notes: String,
    },
    /// Samples without captions.
    #[error("{missing} of {total} samples have no caption: {names}")]
    #[diagnostic(
        code(data::no_captions),
        help(
            "write each caption into a .txt file of the sample's name, or use `captions: optional` to train them without text"
        )
    )]
    NoCaptions {
        /// How many.
        missing: usize,
        /// Of how many.
        total: usize,
        /// The first of them.
        names: String,
    },
    /// Too many samples that cannot be used.
    #[error("{skipped} of {total} samples are skipped, more than {limit}: {list}")]
    #[diagnostic(
        code(data::skipped),
        help("mend or remove them, or permit more with `max-skipped`, such as `max-skipped: 5 %`")
    )]
    Skipped {
        /// How many.
        skipped: usize,
        /// Of how many.
        total: usize,
        /// The largest share.
        limit: Percent,
        /// The first of them with their reasons.
        list: String,
    },
    /// A source that cannot be listed.
    #[error("{}: {reason}", path.display())]
    #[diagnostic(code(data::source), help("{help}"))]
    Source {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What to do.
        help: String,
    },
    /// A picture that cannot be decoded or written.
    #[error("{}: {reason}", path.display())]
    #[diagnostic(code(data::picture), help("copy the file again, or save the picture as PNG"))]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Asked to stop; finished work is in the checkpoint folder.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A part of the model could not be loaded.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// A prompt could not be encoded.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The schedule or the sampler failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sample(#[from] SampleError),
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(data::tensor))]
    Tensor(#[from] candle_core::Error),
}

impl DataError {
    /// For `map_err`: names the file.
    pub(super) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let named = FileError::at(path);
        move |source| Self::File(named(source))
    }
}
