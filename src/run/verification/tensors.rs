//! By how much the tensors of two files differ.

use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::size::Size;
use crate::base::Mapping;

/// Compares two files with the same tensors of real numbers; `None` if they have others.
pub(super) fn compare(old: &Path, new: &Path) -> Option<Size> {
    let (before, after) = (Mapping::open(old).ok()?, Mapping::open(new).ok()?);
    let (before, after) = (SafeTensors::deserialize(&before).ok()?, SafeTensors::deserialize(&after).ok()?);
    if before.len() != after.len() {
        return None;
    }
    let (mut differ, mut of, mut most) = (0, 0, (String::new(), 0.0));
    for (name, old) in before.iter() {
        let new = after.tensor(name).ok().filter(|new| new.shape() == old.shape())?;
        // Of a tensor as a whole, because the relative difference of an element near zero says little.
        let (mut distance, mut norm, mut count) = (0.0, 0.0, 0);
        for (old, new) in values(&old)?.zip(values(&new)?) {
            (distance, norm) = (distance + (new - old).powi(2), norm + old.powi(2));
            of += 1;
            count += usize::from(old.to_bits() != new.to_bits());
        }
        differ += count;
        let relative = f64::sqrt(distance / norm.max(f64::MIN_POSITIVE));
        // What is no number differs most.
        if count > 0 && (most.0.is_empty() || relative.is_nan() || relative > most.1) {
            most = (name.to_owned(), relative);
        }
    }
    let (tensor, relative) = most;
    (differ > 0).then_some(Size::Tensors { differ, of, tensor, relative })
}

/// The numbers of a tensor; `None` of whole numbers.
fn values<'t>(tensor: &TensorView<'t>) -> Option<Box<dyn Iterator<Item = f64> + 't>> {
    let bytes: &'t [u8] = tensor.data();
    Some(match tensor.dtype() {
        Dtype::F64 => {
            Box::new(bytes.chunks_exact(8).filter_map(|part| Some(f64::from_le_bytes(part.try_into().ok()?))))
        }
        Dtype::F32 => Box::new(
            bytes.chunks_exact(4).filter_map(|part| Some(f32::from_le_bytes(part.try_into().ok()?).into())),
        ),
        Dtype::F16 => Box::new(
            bytes.chunks_exact(2).filter_map(|part| Some(f16::from_le_bytes(part.try_into().ok()?).into())),
        ),
        Dtype::BF16 => Box::new(
            bytes.chunks_exact(2).filter_map(|part| Some(bf16::from_le_bytes(part.try_into().ok()?).into())),
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::serialize_to_file;

    use super::*;

    #[test]
    fn tensors_differ_by_their_norm() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, numbers: [f32; 2]| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            let view = TensorView::new(Dtype::F32, vec![2], &bytes).expect("eight bytes");
            let path = folder.path().join(name);
            serialize_to_file([("weight", view)], None, &path).expect("writable");
            path
        };
        let old = write("old", [3.0, 4.0]);
        let Some(Size::Tensors { differ, of, tensor, relative }) = compare(&old, &write("new", [3.0, 4.5]))
        else {
            panic!("it has other numbers")
        };
        assert_eq!((differ, of, tensor.as_str(), relative), (1, 2, "weight", 0.1));
        assert_eq!(compare(&old, &write("equal", [3.0, 4.0])), None);
    }
}
