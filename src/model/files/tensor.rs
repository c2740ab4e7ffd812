//! A tensor by its name and shape, without its numbers.

/// One tensor that a model asks for.
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
