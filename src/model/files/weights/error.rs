//! What can be wrong with a file of weights, and what to do about it.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use super::reading::Reading;

/// A file of weights that cannot be used.
#[derive(Debug, Error, Diagnostic)]
pub enum WeightsError {
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    #[diagnostic(code(weights::read), help("check that the path is right and that you may read it"))]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// A model folder without weights.
    #[error("{} holds no weights in safetensors format", folder.display())]
    #[diagnostic(
        code(weights::nothing_found),
        help(
            "expected diffusion_pytorch_model.safetensors or model.safetensors, or their shards with a \
             .safetensors.index.json; was the download cut short?"
        )
    )]
    NothingFound {
        /// The folder.
        folder: PathBuf,
    },

    /// Weights that Python would have to execute.
    #[error("{} is a pickle, which can run any code when it is read", path.display())]
    #[diagnostic(
        code(weights::pickle),
        help(
            "convert it where you trust it: in Python, load a folder's model with `from_pretrained(..., \
             use_safetensors=False)`, a single .ckpt with diffusers' `StableDiffusionPipeline.from_single_file`, and save \
             it with `save_pretrained(folder, safe_serialization=True)`"
        )
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },

    /// A file whose header does not describe its bytes.
    #[error("{} is not a complete safetensors file: {reason}", path.display())]
    #[diagnostic(code(weights::header), help("it is cut short or damaged: download or write it again"))]
    Header {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },

    /// An index of shards that cannot be read.
    #[error("{} is not an index of shards: {reason}", path.display())]
    #[diagnostic(
        code(weights::index),
        help("expected JSON with a `weight_map` from tensor names to file names")
    )]
    Index {
        /// The index.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },

    /// An index of shards that reaches out of its folder.
    #[error("{} names the shard `{shard}`, which is not a file beside it", path.display())]
    #[diagnostic(
        code(weights::outside),
        help("a shard must be a plain file name; do not use this model unless you know why it is so")
    )]
    Outside {
        /// The index.
        path: PathBuf,
        /// The shard as written.
        shard: String,
    },

    /// A tensor that is not there.
    #[error("{} has no tensor `{name}`", path.display())]
    #[diagnostic(
        code(weights::missing),
        help("config.json and weights do not belong together, or the file is of another kind of model")
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },

    /// A tensor of another shape.
    #[error("`{name}` in {} has shape {found:?}, but its configuration asks for {needed:?}", path.display())]
    #[diagnostic(code(weights::shape), help("config.json and weights do not belong together"))]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        needed: Vec<usize>,
    },

    /// A tensor that is not what the layout of the file says.
    #[error("`{name}` in {} cannot be read as {reading}", path.display())]
    #[diagnostic(code(weights::reading), help("the file is of another kind of model, or damaged"))]
    Reading {
        /// The file.
        path: PathBuf,
        /// The tensor as stored.
        name: String,
        /// How it was to be read.
        reading: Reading,
    },

    /// A data type that we do not compute with.
    #[error("`{name}` in {} is stored as {dtype}", path.display())]
    #[diagnostic(code(weights::dtype), help("store the weights as F32, F16 or BF16"))]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The type in the file.
        dtype: String,
    },

    /// A weight that is no number.
    #[error("`{name}` in {} is not finite at element {index}", path.display())]
    #[diagnostic(
        code(weights::not_finite),
        help("the model is damaged, or overflowed when it was converted to half precision")
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The first such element, counted row by row.
        index: usize,
    },

    /// Memory or device trouble while reading a tensor.
    #[error("cannot load `{name}`: {source}")]
    #[diagnostic(code(weights::tensor), help("if memory is short, use a smaller dtype or another device"))]
    Tensor {
        /// The tensor.
        name: String,
        /// Why.
        source: candle_core::Error,
    },
}
