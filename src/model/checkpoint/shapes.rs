//! The names and shapes of a checkpoint's tensors, which determine its models.

use crate::model::files::Weights;

/// Shapes of the tensors under a prefix. A missing tensor is an error that names it.
pub(super) struct Shapes<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl<'a> Shapes<'a> {
    pub(super) fn new(weights: &'a Weights, prefix: &str) -> Self {
        Self { weights, prefix: prefix.to_owned() }
    }

    pub(super) fn within(&self, inside: impl std::fmt::Display) -> Self {
        Self { weights: self.weights, prefix: format!("{}{inside}.", self.prefix) }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.weights.contains(&format!("{}{name}", self.prefix))
    }

    pub(super) fn size(&self, name: &str, dimension: usize) -> Result<usize, String> {
        let name = format!("{}{name}", self.prefix);
        let shape = self.weights.shape(&name).map_err(|_| format!("there is no `{name}`"))?;
        shape.get(dimension).copied().ok_or_else(|| format!("`{name}` has the shape {shape:?}"))
    }

    /// How many modules `module.0`, `module.1`, … have the tensor `probe`.
    pub(super) fn count(&self, module: &str, probe: &str) -> usize {
        (0..).take_while(|index| self.has(&format!("{module}.{index}.{probe}"))).count()
    }

    /// The number of dimensions of a tensor; 0 if it is missing.
    pub(super) fn rank(&self, name: &str) -> usize {
        self.weights.shape(&format!("{}{name}", self.prefix)).map_or(0, |shape| shape.len())
    }

    /// Number of blocks of the transformer at this prefix; `None` without a transformer.
    pub(super) fn depth(&self) -> Option<usize> {
        self.has("proj_in.weight").then(|| self.count("transformer_blocks", "norm1.weight"))
    }
}
