//! A tensor's two names: in a checkpoint of the original layout, and in diffusers or transformers.

use super::draft::Draft;
use super::form::Form;
use crate::model::files::weights::{Reading, Stored, Weights, WeightsError};

/// One tensor of a checkpoint, with its name in diffusers or transformers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its name in the checkpoint, without the prefix of its model.
    pub original: String,
    /// Its name in diffusers or transformers; several names if the checkpoint stacks tensors along the first dimension.
    pub parts: Vec<String>,
    /// How the checkpoint stores it.
    pub form: Form,
}

impl Pair {
    /// A tensor that differs only in its name.
    pub fn same(original: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(original, name, Form::Same)
    }

    pub(in crate::model) fn new(original: impl Into<String>, name: impl Into<String>, form: Form) -> Self {
        Self { original: original.into(), parts: vec![name.into()], form }
    }

    fn reading(&self, index: usize) -> Reading {
        match self.form {
            Form::Same => Reading::Whole,
            Form::Convolution => Reading::Linear,
            Form::Stacked => Reading::Part { index, of: self.parts.len() },
            Form::Transposed => Reading::Transposed,
        }
    }

    /// The tensor as the checkpoint stores it, assembled from its parts.
    pub fn draft<'a>(
        &self,
        part: impl Fn(&str) -> Result<Stored<'a>, WeightsError>,
    ) -> Result<Draft<'a>, WeightsError> {
        let parts = self.parts.iter().map(|name| part(name)).collect::<Result<Vec<_>, _>>()?;
        Ok(Draft::new(parts, self.form))
    }
}

/// The model at `prefix` of a checkpoint, with diffusers' names.
pub(in crate::model) fn read(checkpoint: &Weights, prefix: &str, pairs: &[Pair]) -> Weights {
    checkpoint.renamed(pairs.iter().flat_map(|pair| {
        let stored = format!("{prefix}{}", pair.original);
        let parts = pair.parts.iter().enumerate();
        parts.map(move |(index, name)| (name.clone(), stored.clone(), pair.reading(index)))
    }))
}
