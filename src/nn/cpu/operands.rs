//! The operands of kernels: which ones a kernel takes, how it reads them, and where it writes.

use std::cell::RefCell;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};

use crate::nn::gradient;

/// Whether the kernels of this module serve these operands.
pub(in crate::nn) fn serves(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.device().is_cpu() && tensor.dtype() == DType::F32)
}

/// Whether the kernels of convolution and linear layers serve these; their weights may be halves.
pub(in crate::nn) fn serves_weighted(x: &Tensor, weight: &Tensor) -> bool {
    serves(&[x]) && matches!(weight.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// The elements of a forward operand, which the layers hand over contiguous.
pub(super) fn operand<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        (CpuStorage::F32(_), None) => bail!("{op}: operand {:?} is not contiguous", layout.shape()),
        _ => bail!("{op}: operand {:?} is not f32", layout.shape()),
    }
}

/// The elements of a tensor, locked for reading.
pub(super) struct Elements<Guard> {
    storage: Guard,
    range: Range<usize>,
}

/// Locks a contiguous f32 tensor on the CPU for reading. The type of candle's lock has no public name.
pub(super) fn elements(tensor: &Tensor) -> Result<Elements<impl Deref<Target = Storage>>> {
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

/// The gradient of an operand, computed only if somebody will ask for it.
pub(super) fn for_tracked(operand: &Tensor, gradient: impl FnOnce() -> Vec<f32>) -> Result<Option<Tensor>> {
    if operand.track_op() {
        let gradient = Tensor::from_vec(gradient(), operand.shape(), operand.device())?;
        gradient::give(operand, gradient.to_dtype(operand.dtype())?)
    } else {
        Ok(None)
    }
}

/// A new buffer, every element of which `write` sets before anything reads it.
///
/// Nothing is cleared first: zeros cost norms and activations as much as the work itself. Under test the buffer
/// begins as NaN, so an element that a kernel leaves out is seen.
pub(super) fn filled(length: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut buffer = Box::<[f32]>::new_uninit_slice(length);
    if cfg!(test) {
        buffer.iter_mut().for_each(|element| _ = element.write(f32::NAN));
    }
    // SAFETY: the slice covers the allocation, and kernels only write to it until all of it is set.
    write(unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast(), length) });
    // SAFETY: `write` has set every element, and any bits are an f32.
    unsafe { buffer.assume_init() }.into_vec()
}

/// Lends one of this thread's buffers, `length` elements holding whatever was left in it.
///
/// The buffer is taken out while it is lent, so a nested call gets another one.
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
