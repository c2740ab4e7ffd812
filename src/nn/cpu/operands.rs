//! The operands of kernels: which ones a kernel accepts, how it reads them, and where it writes.

use std::cell::RefCell;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Result, Storage, Tensor, bail};

/// Whether the kernels of this module support these operands.
pub(in crate::nn) fn serves(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.device().is_cpu() && tensor.dtype() == DType::F32)
}

/// Whether the kernels of convolution and linear layers support these operands; their weights may be in half precision.
pub(in crate::nn) fn serves_weighted(x: &Tensor, weight: &Tensor) -> bool {
    serves(&[x]) && matches!(weight.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// The elements of a tensor, locked for reading.
pub(in crate::nn) struct Elements<Guard> {
    storage: Guard,
    range: Range<usize>,
}

/// Locks a contiguous f32 tensor on the CPU for reading. candle's lock type has no public name.
pub(in crate::nn) fn elements(tensor: &Tensor) -> Result<Elements<impl Deref<Target = Storage>>> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(_)), Some((start, end))) => Ok(Elements { storage, range: start..end }),
        _ => bail!("the CPU kernels need contiguous f32, found {:?} {:?}", tensor.dtype(), tensor.layout()),
    }
}

impl<Guard: Deref<Target = Storage>> Deref for Elements<Guard> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => &data[self.range.clone()],
            _ => unreachable!("BUG: the storage was checked when it was locked"),
        }
    }
}

/// A new buffer; `write` must set every element before anything reads it.
///
/// The buffer is not cleared: clearing would cost norms and activations as much as the work itself. In tests the buffer
/// is filled with NaN, so that an element that a kernel does not write is detected.
pub(super) fn filled(length: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut buffer = Box::<[f32]>::new_uninit_slice(length);
    if cfg!(test) {
        buffer.iter_mut().for_each(|element| _ = element.write(f32::NAN));
    }
    // SAFETY: the slice covers the allocation, and kernels only write to it until every element is set.
    write(unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast(), length) });
    // SAFETY: `write` has set every element, and every bit pattern is a valid f32.
    unsafe { buffer.assume_init() }.into_vec()
}

/// Lends one of this thread's buffers; its `length` elements have arbitrary values.
///
/// The buffer is removed from the pool while it is lent, so a nested call gets another one.
pub(super) fn scratch<R>(length: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static BUFFERS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    let result = work(&mut buffer[..length]);
    BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}
