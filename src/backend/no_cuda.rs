//! A program that was built without CUDA.

use candle_core::{Device, Result, bail};

use super::nccl::{IsDone, Stream};

/// Whether the program was built with CUDA.
pub(super) const BUILT: bool = false;

/// Why no GPU can be used.
pub(super) fn available() -> std::result::Result<(), String> {
    Err("this program was built without CUDA; build it with `--features cuda`".to_owned())
}

/// The libraries that the program would use and that this machine lacks: none is used.
pub fn missing_libraries() -> Vec<String> {
    Vec::new()
}

/// Whether products in f32 are in TF32: there is no device for them.
pub(super) fn rounds_to_tf32() -> bool {
    false
}

/// The stream of a GPU, and whether all work on it is done: there is none.
pub fn stream_of(_: &Device) -> Option<(Stream, IsDone)> {
    None
}

/// Opens a GPU.
pub(super) fn open(_: usize, _: bool) -> Result<Device> {
    bail!("the GPU cannot be opened")
}
