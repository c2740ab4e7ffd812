//! Checks of the untrusted contents of a weights file: header, index, values.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::error::WeightsError;
use crate::base::files::is_plain_name;
use crate::base::python_json;
use crate::model::files::kind::{self, Kind};

/// File extensions of PyTorch's pickles.
pub(super) const PICKLE_ENDINGS: [&str; 4] = [".bin", ".ckpt", ".pt", ".pth"];

/// Whether the file is a zip archive, or a bare pickle of protocol 2 to 5. The length field of a header can start with
/// the same bytes, so a brace where the JSON header starts means that it is not a pickle.
fn is_pickle(bytes: &[u8]) -> bool {
    let magic = bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 2..=5, ..]);
    magic && bytes.get(8) != Some(&b'{')
}

/// Reads a header: where the data begins, and the tensors. The crate checks that the tensors are contiguous, without
/// gap or overlap, and fill the file exactly.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<(usize, Metadata), WeightsError> {
    if is_pickle(bytes) {
        return Err(WeightsError::Pickle { path: path.to_owned() });
    }
    if let Some(Kind { what, help }) = kind::by_bytes(bytes) {
        return Err(WeightsError::OtherKind { path: path.to_owned(), what, help });
    }
    let broken = |reason: String| WeightsError::Header { path: path.to_owned(), reason };
    let Some(&claimed) = bytes.first_chunk::<8>() else {
        return Err(broken(format!("it has only {} bytes", bytes.len())));
    };
    let (claimed, rest) = (u64::from_le_bytes(claimed), bytes.len() as u64 - 8);
    if claimed > rest {
        return Err(broken(format!("its header claims {claimed} bytes, but only {rest} follow")));
    }
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| broken(error.to_string()))?;
    Ok((header + 8, metadata))
}

/// Reads an index of shards: the file of each tensor. Only plain names of files in the same folder are accepted. Hidden
/// files are never read, so that whatever hashes a folder may leave them out.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = fs::read(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
    let index: Index = python_json::from_slice(&text)
        .map_err(|error| WeightsError::Index { path: path.to_owned(), reason: error.to_string() })?;
    for shard in index.weight_map.values() {
        if !is_plain_name(shard) {
            return Err(WeightsError::Outside { path: path.to_owned(), shard: shard.clone() });
        }
        if shard.starts_with('.') {
            return Err(WeightsError::Hidden { path: path.to_owned(), shard: shard.clone() });
        }
    }
    Ok(index.weight_map)
}

/// The first element of floating-point data that is infinite or NaN.
pub(super) fn first_not_finite(dtype: Dtype, data: &[u8]) -> Option<usize> {
    // A number is not finite if all bits of its exponent are set. Eight-bit E4M3 has no infinity: there the bits of the
    // mantissa must be set too.
    match dtype {
        Dtype::F64 => first(data, |bytes| !f64::from_le_bytes(bytes).is_finite()),
        Dtype::F32 => first(data, |bytes| u32::from_le_bytes(bytes) & 0x7f80_0000 == 0x7f80_0000),
        Dtype::F16 => first(data, |bytes| u16::from_le_bytes(bytes) & 0x7c00 == 0x7c00),
        Dtype::BF16 => first(data, |bytes| u16::from_le_bytes(bytes) & 0x7f80 == 0x7f80),
        Dtype::F8_E4M3 => first(data, |[byte]: [u8; 1]| byte & 0x7f == 0x7f),
        _ => None,
    }
}

/// The first element that is `wrong`. Blocks are checked without a branch, which compiles to vector instructions; a loop
/// that may stop at each element does not.
fn first<const N: usize>(data: &[u8], wrong: impl Fn([u8; N]) -> bool) -> Option<usize> {
    const BLOCK: usize = 4096;
    let elements = data.as_chunks().0;
    let blocks = elements.chunks(BLOCK).enumerate();
    let mut found = blocks.filter(|(_, block)| block.iter().fold(false, |any, &bytes| any | wrong(bytes)));
    let (block, inside) = found.next()?;
    Some(block * BLOCK + inside.iter().position(|&bytes| wrong(bytes))?)
}
