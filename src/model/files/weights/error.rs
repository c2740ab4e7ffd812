//! Errors of reading weights, each with advice.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use super::reading::Reading;

/// A weights file that cannot be used.
#[derive(Debug, Error, Diagnostic)]
pub enum WeightsError {
    /// The file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    #[diagnostic(code(weights::read), help("check the path and your permission to read it"))]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        source: io::Error,
    },

    /// A model folder without weights.
    #[error("{} contains no weights in safetensors format", folder.display())]
    #[diagnostic(
        code(weights::nothing_found),
        help(
            "expected diffusion_pytorch_model.safetensors or model.safetensors, or their shards with a \
             .safetensors.index.json; the download may be incomplete"
        )
    )]
    NothingFound {
        /// The folder.
        folder: PathBuf,
    },

    /// Pickled weights, which Python would have to execute.
    #[error("{} is a pickle, which can run any code when it is read", path.display())]
    #[diagnostic(
        code(weights::pickle),
        help(
            "if you trust the file, convert it in Python: load a model folder with `from_pretrained(..., \
             use_safetensors=False)`, or a single .ckpt with diffusers' `StableDiffusionPipeline.from_single_file`, \
             then save it with `save_pretrained(folder, safe_serialization=True)`"
        )
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },

    /// A file of another kind.
    #[error("{} is {what}", path.display())]
    #[diagnostic(code(weights::other_kind), help("{help}"))]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to do.
        help: &'static str,
    },

    /// Weights with an addition that only its own code reads.
    #[error("{} contains {what}: `{name}`{}", path.display(), others(*more))]
    #[diagnostic(code(weights::addition), help("{help}"))]
    Addition {
        /// The file.
        path: PathBuf,
        /// What was added.
        what: &'static str,
        /// One of its tensors.
        name: String,
        /// How many other tensors have no place either.
        more: usize,
        /// What to do.
        help: &'static str,
    },

    /// Tensors that do not belong to the network.
    #[error("{} contains tensors that its config.json does not account for: `{name}`{}", path.display(), others(*more))]
    #[diagnostic(
        code(weights::unplaced),
        help(
            "config.json and weights do not belong together, or the model was changed by code that this program does not \
             know; save it again from its original"
        )
    )]
    Unplaced {
        /// The file.
        path: PathBuf,
        /// One of the tensors.
        name: String,
        /// How many others there are.
        more: usize,
    },

    /// A file whose header does not match its contents.
    #[error("{} is not a complete safetensors file: {reason}", path.display())]
    #[diagnostic(code(weights::header), help("the file is truncated or damaged: download or write it again"))]
    Header {
        /// The file.
        path: PathBuf,
        /// What does not match.
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
        /// What is wrong with it.
        reason: String,
    },

    /// An index that refers to a shard outside its folder.
    #[error("{} names the shard `{shard}`, which is not a file in the same folder", path.display())]
    #[diagnostic(
        code(weights::outside),
        help(
            "a shard must be a plain file name; do not use this model unless you know why its index names other paths"
        )
    )]
    Outside {
        /// The index.
        path: PathBuf,
        /// The shard's name as written.
        shard: String,
    },

    /// An index that names a hidden file.
    #[error("{} names the hidden file `{shard}`, and hidden files are not read", path.display())]
    #[diagnostic(
        code(weights::hidden),
        help("give the file and its entries in the index a name that does not begin with a dot")
    )]
    Hidden {
        /// The index.
        path: PathBuf,
        /// The shard's name as written.
        shard: String,
    },

    /// A missing tensor.
    #[error("{} has no tensor `{name}`", path.display())]
    #[diagnostic(
        code(weights::missing),
        help("config.json and weights do not belong together, or the file belongs to another kind of model")
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },

    /// A tensor with a different shape.
    #[error("`{name}` in {} has shape {found:?}, but its configuration requires {needed:?}", path.display())]
    #[diagnostic(code(weights::shape), help("config.json and weights do not belong together"))]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration requires.
        needed: Vec<usize>,
    },

    /// A tensor that does not match the layout of the file.
    #[error("`{name}` in {} cannot be read as {reading}", path.display())]
    #[diagnostic(code(weights::reading), help("the file belongs to another kind of model, or is damaged"))]
    Reading {
        /// The file.
        path: PathBuf,
        /// The tensor as stored.
        name: String,
        /// How it should have been read.
        reading: Reading,
    },

    /// A data type that is not supported.
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

    /// A weight that is not finite.
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

    /// A memory or device error while reading a tensor.
    #[error("cannot load `{name}`: {source}")]
    #[diagnostic(code(weights::tensor), help("if memory runs out, use a smaller dtype or another device"))]
    Tensor {
        /// The tensor.
        name: String,
        /// The cause.
        source: candle_core::Error,
    },
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" and {more} more") }
}
