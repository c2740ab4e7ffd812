//! Numbers for kernels that are launched without tensors.

use candle_core::{DType, Device, Result, Tensor};
use half::bf16;

use crate::nn::cuda::launch::Pointer;

/// Numbers in the emulation's memory, which is the host's.
pub(super) struct Buffer<T>(pub(super) Vec<T>);

impl<T> Buffer<T> {
    pub(super) fn pointer(&mut self) -> Pointer {
        Pointer(self.0.as_mut_ptr() as u64)
    }
}

impl Buffer<f32> {
    /// What no kernel may read before it is written.
    pub(super) fn nan(elements: usize) -> Self {
        Self(vec![f32::NAN; elements])
    }

    pub(super) fn of(tensor: &Tensor) -> Result<Self> {
        Ok(Self(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
    }
}

/// Numbers that flow, in one of the kernels' types.
pub(super) enum Flowing {
    Bf16(Buffer<bf16>),
    F32(Buffer<f32>),
}

impl Flowing {
    pub(super) fn of(tensor: &Tensor, dtype: DType) -> Result<Self> {
        Ok(match dtype {
            DType::BF16 => {
                Self::Bf16(Buffer(tensor.to_dtype(DType::F32)?.to_dtype(dtype)?.flatten_all()?.to_vec1()?))
            }
            _ => Self::F32(Buffer::of(tensor)?),
        })
    }

    pub(super) fn nan(shape: &[usize], dtype: DType) -> Result<Self> {
        Self::of(&Tensor::full(f32::NAN, shape, &Device::Cpu)?, dtype)
    }

    pub(super) fn pointer(&mut self) -> Pointer {
        match self {
            Self::Bf16(buffer) => buffer.pointer(),
            Self::F32(buffer) => buffer.pointer(),
        }
    }

    /// In f64.
    pub(super) fn tensor(&self, shape: &[usize]) -> Result<Tensor> {
        match self {
            Self::Bf16(Buffer(numbers)) => Tensor::from_slice(numbers, shape, &Device::Cpu),
            Self::F32(Buffer(numbers)) => Tensor::from_slice(numbers, shape, &Device::Cpu),
        }?
        .to_dtype(DType::F64)
    }
}
