//! Which part of a stored tensor is used, and how: layouts differ in what they stack, transpose, or write as a
//! convolution.

use std::borrow::Cow;
use std::fmt;

use candle_core::safetensors::Load;
use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, View};

/// How a tensor is derived from a stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Unchanged.
    Whole,
    /// A 1x1 convolution [o, i, 1, 1] read as the linear layer [o, i] that it is; a linear layer is unchanged.
    Linear,
    /// One of several parts stacked along the first dimension.
    Part {
        /// Its index, from 0.
        index: usize,
        /// The number of parts.
        of: usize,
    },
    /// A transposed matrix.
    Transposed,
}

/// A tensor as stored. Its bytes are borrowed from the mapped file, except for transposed ones.
#[derive(Clone, Debug)]
pub struct Stored<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Cow<'a, [u8]>,
}

impl Reading {
    /// The shape that results from a stored shape; `None` if this reading does not apply to it.
    pub(super) fn shape(self, stored: &[usize]) -> Option<Vec<usize>> {
        match (self, stored) {
            (Self::Whole, _) | (Self::Linear, [_, _]) => Some(stored.to_vec()),
            (Self::Linear, &[outputs, inputs, 1, 1]) => Some(vec![outputs, inputs]),
            (Self::Part { index, of }, &[rows, ref rest @ ..]) if index < of && rows.is_multiple_of(of) => {
                Some([&[rows / of], rest].concat())
            }
            (Self::Transposed, &[rows, columns]) => Some(vec![columns, rows]),
            _ => None,
        }
    }

    /// `None` if this reading does not apply to the tensor's shape.
    pub(super) fn read(self, view: TensorView<'_>) -> Option<Stored<'_>> {
        let (dtype, shape, data) = (view.dtype(), self.shape(view.shape())?, view.data());
        let data = match self {
            Self::Whole | Self::Linear => Cow::Borrowed(data),
            Self::Part { index, of } => {
                let bytes = data.len() / of;
                Cow::Borrowed(&data[index * bytes..][..bytes])
            }
            Self::Transposed => Cow::Owned(transpose(data, shape[1], shape[0])),
        };
        Some(Stored { dtype, shape, data })
    }
}

/// The bytes of the transposed matrix.
pub fn transpose(data: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let element = data.len() / (rows * columns).max(1);
    let mut transposed = Vec::with_capacity(data.len());
    for column in 0..columns {
        for row in 0..rows {
            transposed.extend_from_slice(&data[(row * columns + column) * element..][..element]);
        }
    }
    transposed
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("it is"),
            Self::Linear => f.write_str("a linear layer"),
            Self::Part { index, of } => write!(f, "part {} of {of}", index + 1),
            Self::Transposed => f.write_str("a matrix"),
        }
    }
}

impl<'a> Stored<'a> {
    /// Its data type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its bytes, in row-major order.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The tensor in its stored type.
    pub(super) fn load(&self, device: &Device) -> candle_core::Result<Tensor> {
        TensorView::new(self.dtype, self.shape.clone(), &self.data)?.load(device)
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}
