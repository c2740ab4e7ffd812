//! A tensor that is assembled while it is written, so that writing a checkpoint of gigabytes needs the memory of one
//! tensor.

use std::borrow::Cow;

use half::{bf16, f16};
use safetensors::{Dtype, View};

use super::form::Form;
use crate::model::files::weights::{Stored, transpose};

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    content: Content<'a>,
}

#[derive(Clone, Debug)]
enum Content<'a> {
    Parts(Vec<Stored<'a>>),
    Transposed(Stored<'a>),
    Zeros(usize),
    /// Another tensor converted to another floating-point type.
    Converted(Box<Draft<'a>>),
}

impl<'a> Draft<'a> {
    /// An existing tensor, unchanged.
    pub fn of(stored: Stored<'a>) -> Self {
        Self { dtype: stored.dtype(), shape: stored.shape().to_vec(), content: Content::Parts(vec![stored]) }
    }

    /// Zeros.
    pub fn zeros(dtype: Dtype, shape: Vec<usize>) -> Self {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        Self { dtype, shape, content: Content::Zeros(bytes) }
    }

    /// Converts to another floating-point type; other types are kept.
    pub fn in_dtype(self, dtype: Dtype) -> Self {
        let floats = |dtype| matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        if dtype == self.dtype || !floats(dtype) || !floats(self.dtype) {
            return self;
        }
        Self { dtype, shape: self.shape.clone(), content: Content::Converted(Box::new(self)) }
    }

    /// Combines tensors of one shape into the form that a checkpoint stores.
    pub(super) fn new(mut parts: Vec<Stored<'a>>, form: Form) -> Self {
        let (dtype, mut shape) = (parts[0].dtype(), parts[0].shape().to_vec());
        let content = match form {
            Form::Transposed => Content::Transposed(parts.swap_remove(0)),
            _ => Content::Parts(parts),
        };
        match form {
            Form::Same => {}
            Form::Convolution => shape.resize(4, 1),
            Form::Transposed => shape.reverse(),
            Form::Stacked => {
                if let (Some(rows), Content::Parts(parts)) = (shape.first_mut(), &content) {
                    *rows *= parts.len();
                }
            }
        }
        Self { dtype, shape, content }
    }
}

impl View for Draft<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.content {
            Content::Parts(parts) if parts.len() == 1 => Cow::Borrowed(parts[0].data()),
            Content::Parts(parts) => Cow::Owned(parts.iter().flat_map(|part| part.data()).copied().collect()),
            Content::Transposed(matrix) => {
                let &[columns, rows] = self.shape.as_slice() else {
                    panic!("BUG: only matrices are transposed, not {:?}", self.shape)
                };
                Cow::Owned(transpose(matrix.data(), rows, columns))
            }
            Content::Zeros(bytes) => Cow::Owned(vec![0; *bytes]),
            Content::Converted(from) => Cow::Owned(convert(&from.data(), from.dtype, self.dtype)),
        }
    }

    fn data_len(&self) -> usize {
        match &self.content {
            Content::Parts(parts) => parts.iter().map(|part| part.data().len()).sum(),
            Content::Transposed(matrix) => matrix.data().len(),
            Content::Zeros(bytes) => *bytes,
            Content::Converted(from) => from.data_len() * self.dtype.bitsize() / from.dtype.bitsize(),
        }
    }
}

/// Rounds to nearest.
fn convert(data: &[u8], from: Dtype, to: Dtype) -> Vec<u8> {
    let halves = || data.as_chunks::<2>().0.iter().copied();
    let values: Vec<f32> = match from {
        Dtype::F16 => halves().map(|bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
        Dtype::BF16 => halves().map(|bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
        _ => data.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
    };
    match to {
        Dtype::F16 => values.into_iter().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::BF16 => values.into_iter().flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        _ => values.into_iter().flat_map(f32::to_le_bytes).collect(),
    }
}
