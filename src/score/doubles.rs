//! Safetensors files of f64: what is summed in double precision is also kept in it.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use crate::model::files::weights;

/// Replaces the file at `path` by these tensors: name, shape and values.
pub(super) fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, Vec<usize>, &'a [f64])>,
    metadata: HashMap<String, String>,
) -> io::Result<()> {
    let bytes = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let tensors: Vec<_> =
        tensors.into_iter().map(|(name, shape, values)| (name, shape, bytes(values))).collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F64, shape.clone(), bytes);
        (*name, view.expect("BUG: the shape of a tensor does not match its values"))
    });
    weights::write_with(path, views, Some(metadata))
}

/// The values of a tensor of f64.
pub(super) fn values(tensor: &TensorView<'_>) -> Vec<f64> {
    let (chunks, _) = tensor.data().as_chunks::<8>();
    chunks.iter().map(|&chunk| f64::from_le_bytes(chunk)).collect()
}
