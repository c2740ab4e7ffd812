//! What of a stored tensor is meant: layouts differ in what they stack, transpose, or write as a convolution.

use std::borrow::Cow;
use std::fmt;

use candle_core::safetensors::Load;
use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, View};

/// How a tensor comes from a stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As it is.
    Whole,
    /// A 1x1 convolution [o, i, 1, 1] as the linear layer [o, i] that it is; a linear layer as it is.
    Linear,
    /// One of several parts that are stacked along the first dimension.
    Part {
        /// Which, from 0.
        index: usize,
        /// Of how many.
        of: usize,
    },
    /// A matrix with its rows as columns.
    Transposed,
}

/// A tensor as it is stored. Its bytes lie in the map of the file, but for transposed ones.
#[derive(Clone, Debug)]
pub struct Stored<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Cow<'a, [u8]>,
}

impl Reading {
    /// The shape of what is read from a tensor of the shape `stored`; `None` if it cannot be read so.
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

    /// `None` if a tensor of this shape cannot be read so.
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

/// The bytes of a matrix with its rows as columns.
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
    /// Its type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its bytes, row by row.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// As a tensor of the type that it is stored in.
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
