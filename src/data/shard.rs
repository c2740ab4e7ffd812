//! A memory-mapped safetensors file whose tensors have one row per sample, read row by row: a data set need not fit
//! into memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use super::DataError;
use crate::base::Mapping;

/// A file of rows.
pub(super) struct Shard {
    path: PathBuf,
    bytes: Mapping,
    rows: usize,
    columns: BTreeMap<String, Column>,
}

/// A tensor of the file.
struct Column {
    dtype: DType,
    /// Shape of one row.
    shape: Vec<usize>,
    row_bytes: usize,
    /// Where it begins in the file.
    start: usize,
}

impl Shard {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let bytes = Mapping::open(path).map_err(DataError::file(path))?;
        let (columns, rows) = columns(path, &bytes)?;
        Ok(Self { path: path.to_owned(), bytes, rows, columns })
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The shape of one row of a column.
    pub(super) fn shape(&self, column: &str) -> Option<&[usize]> {
        self.columns.get(column).map(|column| column.shape.as_slice())
    }

    /// Fails unless the file has `rows` rows and its columns are `needed`, each with so many dimensions in a row.
    pub(super) fn check(&self, rows: usize, needed: &[(&str, usize)]) -> Result<(), DataError> {
        if self.rows != rows {
            let reason = format!("it has {} rows; the index says {rows}", self.rows);
            return Err(damaged(&self.path, reason));
        }
        for (name, rank) in needed {
            match self.shape(name) {
                Some(shape) if shape.len() == *rank => {}
                Some(shape) => {
                    let reason = format!("a row of `{name}` has shape {shape:?}; it needs {rank} dimensions");
                    return Err(damaged(&self.path, reason));
                }
                None => return Err(damaged(&self.path, format!("it has no tensor `{name}`"))),
            }
        }
        Ok(())
    }

    /// The integers of a column.
    pub(super) fn integers(&self, column: &str) -> Result<Vec<i64>, DataError> {
        let rows: Vec<(&Self, usize)> = (0..self.rows).map(|row| (self, row)).collect();
        match gather(&rows, column, &Device::Cpu)? {
            Some(tensor) if tensor.dtype() == DType::I64 => Ok(tensor.flatten_all()?.to_vec1()?),
            _ => Err(damaged(&self.path, format!("it has no tensor `{column}` of type i64"))),
        }
    }
}

/// Rows of one column as a tensor [rows, ..]: f32, or i64 for integers. `None` if the files have no such column.
pub(super) fn gather(
    rows: &[(&Shard, usize)],
    column: &str,
    device: &Device,
) -> Result<Option<Tensor>, DataError> {
    let Some(first) = rows.first().and_then(|(shard, _)| shard.columns.get(column)) else { return Ok(None) };
    let is_mixed = |(shard, _): &(&Shard, usize)| {
        shard.columns.get(column).is_some_and(|other| {
            other.dtype != first.dtype && other.dtype.is_float() && other.shape == first.shape
        })
    };
    // Texts may have been encoded on another device, in another type.
    if first.dtype.is_float() && rows.iter().any(is_mixed) {
        let each = |row| Ok(gather(&[row], column, device)?.into_iter());
        let each = rows.iter().copied().map(each).collect::<Result<Vec<_>, DataError>>()?;
        return Ok(Some(Tensor::cat(&each.into_iter().flatten().collect::<Vec<_>>(), 0)?));
    }
    let mut bytes = Vec::with_capacity(rows.len() * first.row_bytes);
    for (shard, row) in rows {
        match shard.columns.get(column) {
            Some(other) if (other.dtype, &other.shape) == (first.dtype, &first.shape) => {
                let start = other.start + row * other.row_bytes;
                bytes.extend_from_slice(&shard.bytes[start..start + other.row_bytes]);
            }
            _ => {
                let reason = format!("its tensor `{column}` differs from that of the other files");
                return Err(damaged(&shard.path, reason));
            }
        }
    }
    let shape = [&[rows.len()], first.shape.as_slice()].concat();
    let tensor = Tensor::from_raw_buffer(&bytes, first.dtype, &shape, device)?;
    Ok(Some(if first.dtype.is_int() { tensor } else { tensor.to_dtype(DType::F32)? }))
}

/// A file that differs from its index.
pub(super) fn damaged(path: &Path, reason: String) -> DataError {
    DataError::Latents { path: path.to_owned(), reason }
}

fn columns(path: &Path, bytes: &[u8]) -> Result<(BTreeMap<String, Column>, usize), DataError> {
    let contents = SafeTensors::deserialize(bytes).map_err(|error| damaged(path, error.to_string()))?;
    let (mut columns, mut rows) = (BTreeMap::new(), None);
    for (name, view) in contents.iter() {
        let Some(&count) = view.shape().first().filter(|_| !view.shape().contains(&0)) else {
            return Err(damaged(path, format!("`{name}` has shape {:?} and contains no rows", view.shape())));
        };
        let known = *rows.get_or_insert(count);
        if known != count {
            return Err(damaged(path, format!("`{name}` has {count} rows, other tensors have {known}")));
        }
        let dtype = dtype(view.dtype())
            .ok_or_else(|| damaged(path, format!("`{name}` has type {:?}", view.dtype())))?;
        let column = Column {
            dtype,
            shape: view.shape()[1..].to_vec(),
            row_bytes: view.data().len() / count,
            start: view.data().as_ptr() as usize - bytes.as_ptr() as usize,
        };
        columns.insert(name.to_owned(), column);
    }
    match rows {
        Some(rows) => Ok((columns, rows)),
        None => Err(damaged(path, "it contains no tensors".to_owned())),
    }
}

fn dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::I64 => Some(DType::I64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::files::weights;

    #[test]
    fn rows_are_found_across_files() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let shard = |name: &str, numbers: &[f32]| -> Result<Shard, Box<dyn std::error::Error>> {
            let path = folder.path().join(name);
            weights::write(&path, [("x", Tensor::new(numbers, &Device::Cpu)?.reshape(((), 2))?)])?;
            Ok(Shard::open(&path)?)
        };
        let (a, b) = (shard("a", &[1.0, 2.0, 3.0, 4.0])?, shard("b", &[5.0, 6.0])?);
        let rows = gather(&[(&b, 0), (&a, 1)], "x", &Device::Cpu)?.expect("there is an x");
        assert_eq!(rows.to_vec2::<f32>()?, [[5.0, 6.0], [3.0, 4.0]]);
        assert!(gather(&[(&a, 0)], "y", &Device::Cpu)?.is_none());
        assert!(a.check(2, &[("x", 1)]).is_ok());
        for (rows, needed) in [(3, ("x", 1)), (2, ("y", 1)), (2, ("x", 3))] {
            assert!(a.check(rows, &[needed]).is_err());
        }
        Ok(())
    }

    #[test]
    fn files_in_other_types_are_read_as_one() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let shard = |name: &str, dtype, numbers: &[f32]| -> Result<Shard, Box<dyn std::error::Error>> {
            let (path, column) = (folder.path().join(name), Tensor::new(numbers, &Device::Cpu)?);
            weights::write(&path, [("x", column.reshape((1, ()))?.to_dtype(dtype)?)])?;
            Ok(Shard::open(&path)?)
        };
        let (full, half) = (shard("a", DType::F32, &[0.1, 2.0])?, shard("b", DType::BF16, &[5.0, 6.0])?);
        let rows = gather(&[(&half, 0), (&full, 0)], "x", &Device::Cpu)?.expect("there is an x");
        assert_eq!(rows.to_vec2::<f32>()?, [[5.0, 6.0], [0.1, 2.0]]);
        let long = shard("c", DType::BF16, &[5.0, 6.0, 7.0])?;
        let error = gather(&[(&full, 0), (&long, 0)], "x", &Device::Cpu).expect_err("another shape");
        assert!(error.to_string().contains("differs from that of the other files"), "{error}");
        Ok(())
    }

    #[test]
    fn damaged_files_are_named() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.safetensors");
        weights::write(&path, [("x", Tensor::new(&[1f32, 2.0], &Device::Cpu)?)])?;
        let whole = std::fs::read(&path)?;
        for bytes in [&whole[..whole.len() - 1], &[0xff; 64][..]] {
            std::fs::write(&path, bytes)?;
            assert!(matches!(Shard::open(&path), Err(DataError::Latents { .. })));
        }
        Ok(())
    }
}
