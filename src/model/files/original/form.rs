//! How a tensor is stored in a checkpoint of the original layout.

/// The stored form of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Unchanged.
    Same,
    /// A linear layer as a 1x1 convolution.
    Convolution,
    /// Several tensors stacked into one.
    Stacked,
    /// A transposed matrix.
    Transposed,
}
