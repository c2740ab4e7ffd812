//! How a checkpoint of the original layout stores a tensor.

/// How a checkpoint has a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is elsewhere.
    Same,
    /// A linear layer as a 1x1 convolution.
    Convolution,
    /// Several as one.
    Stacked,
    /// A matrix with its rows as columns.
    Transposed,
}
