//! Numbers in the memory of a machine: a tensor's, or new ones that become a tensor.

use std::fmt::Debug;

use candle_core::op::BackpropOp;
use candle_core::{DType, Layout, Result, Shape, Storage, Tensor, bail};

use super::channels::Numbers;
use super::launch::{ALIGNMENT, Pointer};

/// A contiguous array.
#[derive(Debug)]
pub(in crate::nn) struct Array {
    pub(in crate::nn) shape: Shape,
    pub(in crate::nn) dtype: DType,
    pub(in crate::nn) pointer: Pointer,
    owner: Owner,
}

/// What keeps the memory.
#[derive(Debug)]
enum Owner {
    Tensor(#[expect(dead_code, reason = "it is only kept")] Tensor),
    Storage(Storage),
    Other(#[expect(dead_code, reason = "it is only kept")] Box<dyn Debug + Send + Sync>),
}

impl Array {
    /// The numbers of a tensor, copied where they are not contiguous or where kernels cannot read them 16 bytes at a
    /// time.
    pub(in crate::nn) fn of(tensor: &Tensor) -> Result<Self> {
        let contiguous = tensor.contiguous()?;
        match Self::view(&contiguous)? {
            array if array.pointer.is_aligned() => Ok(array),
            _ => Self::view(&contiguous.copy()?.force_contiguous()?),
        }
    }

    fn view(tensor: &Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Some((start, _)) = layout.contiguous_offsets() else {
            bail!("BUG: a kernel needs contiguous numbers, found {layout:?}")
        };
        let pointer = address(&storage, layout, start)?;
        let (shape, dtype) = (tensor.shape().clone(), tensor.dtype());
        Ok(Self { shape, dtype, pointer, owner: Owner::Tensor(tensor.clone()) })
    }

    /// New memory.
    #[cfg_attr(
        not(any(feature = "cuda", test)),
        expect(dead_code, reason = "only what runs kernels allocates")
    )]
    pub(in crate::nn) fn owned(storage: Storage, shape: Shape, dtype: DType) -> Result<Self> {
        let pointer = address(&storage, &Layout::contiguous(&shape), 0)?;
        Ok(Self { shape, dtype, pointer, owner: Owner::Storage(storage) })
    }

    /// No memory at all, for a machine that only counts; it ends with `owner`.
    pub(in crate::nn) fn counted(shape: Shape, dtype: DType, owner: Box<dyn Debug + Send + Sync>) -> Self {
        // An address that every launch accepts; nothing is behind it.
        let pointer = Pointer(ALIGNMENT);
        Self { shape, dtype, pointer, owner: Owner::Other(owner) }
    }

    /// New memory with what has been written to it.
    pub(in crate::nn) fn into_storage(self) -> Result<(Storage, Shape)> {
        match self.owner {
            Owner::Storage(storage) => Ok((storage, self.shape)),
            owner => bail!("BUG: only new memory becomes a tensor, found {owner:?}"),
        }
    }

    /// The same as a tensor without a graph.
    pub(in crate::nn) fn into_tensor(self) -> Result<Tensor> {
        let (storage, shape) = self.into_storage()?;
        Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
    }

    /// The kernels' name for its type.
    pub(in crate::nn) fn numbers(&self) -> Result<Numbers> {
        Numbers::of(self.dtype)
    }

    /// The size of the last dimension.
    pub(in crate::nn) fn width(&self) -> usize {
        self.shape.dims().last().copied().unwrap_or(1)
    }

    /// The number of rows of the last dimension.
    pub(in crate::nn) fn rows(&self) -> usize {
        self.shape.elem_count() / self.width().max(1)
    }

    pub(in crate::nn) fn bytes(&self) -> usize {
        self.shape.elem_count() * self.dtype.size_in_bytes()
    }

    /// The address of a row of the last dimension.
    pub(in crate::nn) fn at_row(&self, row: usize) -> Pointer {
        Pointer(self.pointer.0 + (row * self.width() * self.dtype.size_in_bytes()) as u64)
    }
}

/// The address of a tensor's first number, on its device. The numbers are contiguous.
pub(crate) fn address_of(tensor: &Tensor) -> Result<u64> {
    Array::view(tensor).map(|array| array.pointer.0)
}

/// The address of an element.
fn address(storage: &Storage, layout: &Layout, start: usize) -> Result<Pointer> {
    let first = match storage {
        Storage::Cpu(storage) => super::address::on_host(storage)?,
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => super::address::on_card(storage)?,
        other => bail!("BUG: no kernel of ours runs on {:?}, for {layout:?}", other.device()),
    };
    Ok(Pointer(first + (start * storage.dtype().size_in_bytes()) as u64))
}
