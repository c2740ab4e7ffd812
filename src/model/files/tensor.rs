//! The name and shape of a tensor, without its values.

/// One tensor that a model requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name on disk.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl TensorEntry {
    /// The number of its elements.
    pub fn parameters(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}
