//! The state of a training: weights, moments, average and step in one file, so that they cannot disagree.
//!
//! The random streams are named by the step, so no generator state is kept. The facts are JSON in the file's own
//! header. A rename replaces the previous checkpoint only once the new one is complete.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use candle_core::safetensors::Load;
use candle_core::{Tensor, Var};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::error::DistillError;
use crate::base::Mapping;
use crate::model::files::weights;

const FILE: &str = "distill.safetensors";
const KEY: &str = "laptop-diff.distill";
const FORMAT: u32 = 1;

/// The facts beside the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainingState {
    format: u32,
    /// Steps done.
    pub(super) step: u64,
    /// Weight of each compared feature map, measured once at the start. f32 survives JSON unchanged.
    pub(super) feature_weights: Vec<(String, f32)>,
}

impl TrainingState {
    pub(super) fn new(step: u64, feature_weights: Vec<(String, f32)>) -> Self {
        Self { format: FORMAT, step, feature_weights }
    }
}

/// Writes a checkpoint into `folder`; the previous one stays until this one is complete.
pub(super) fn save(
    folder: &Path,
    state: &TrainingState,
    variables: &[(String, Var)],
) -> Result<(), DistillError> {
    let path = folder.join(FILE);
    let facts = serde_json::to_string(state).expect("numbers and names serialise");
    let tensors = variables.iter().map(|(name, variable)| (name, variable.as_detached_tensor()));
    weights::write_with(&path, tensors, Some(HashMap::from([(KEY.to_owned(), facts)])))
        .map_err(DistillError::file(&path))
}

/// Fills `variables` from the checkpoint in `folder`; `None` if there is none.
pub(super) fn load(
    folder: &Path,
    variables: &[(String, Var)],
) -> Result<Option<TrainingState>, DistillError> {
    let path = folder.join(FILE);
    let bytes = match Mapping::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(DistillError::file(&path))?,
    };
    let damaged = |reason: String| DistillError::Checkpoint { path: path.clone(), reason };
    let contents = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
    let facts = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let facts = facts.ok_or_else(|| damaged(format!("its header has no `{KEY}`")))?;
    let state: TrainingState =
        serde_json::from_str(facts).map_err(|error| damaged(format!("`{KEY}`: {error}")))?;
    if state.format != FORMAT {
        return Err(damaged(format!("it has format {}; this program writes {FORMAT}", state.format)));
    }
    if contents.len() != variables.len() {
        return Err(damaged(format!(
            "it contains {} tensors; this student needs {}",
            contents.len(),
            variables.len()
        )));
    }
    for (name, variable) in variables {
        let tensor = contents.tensor(name).map_err(|error| damaged(error.to_string()))?;
        if tensor.shape() != variable.dims() {
            let (found, needed) = (tensor.shape(), variable.dims());
            return Err(damaged(format!("`{name}` is {found:?}; this student needs {needed:?}")));
        }
        let tensor: Tensor = tensor.load(variable.device())?;
        variable.set(&tensor)?;
    }
    Ok(Some(state))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn variables(numbers: [f32; 3]) -> candle_core::Result<Vec<(String, Var)>> {
        Ok(vec![("parameter.w".to_owned(), Var::new(&numbers, &Device::Cpu)?)])
    }

    #[test]
    fn what_is_saved_is_loaded() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        assert_eq!(load(folder.path(), &variables([0.0; 3])?)?, None);
        let weights = vec![("mid_block".to_owned(), 0.1f32), ("up_blocks.0".to_owned(), f32::MIN_POSITIVE)];
        for step in [3, 7] {
            let state = TrainingState::new(step, weights.clone());
            save(folder.path(), &state, &variables([step as f32, 0.1, -0.0])?)?;
            let found = variables([0.0; 3])?;
            assert_eq!(load(folder.path(), &found)?, Some(state));
            assert_eq!(found[0].1.to_vec1::<f32>()?, [step as f32, 0.1, -0.0]);
        }
        Ok(())
    }

    #[test]
    fn a_wrong_or_damaged_checkpoint_is_named() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        save(folder.path(), &TrainingState::new(1, Vec::new()), &variables([0.0; 3])?)?;
        let other = vec![("parameter.w".to_owned(), Var::new(&[0f32; 2], &Device::Cpu)?)];
        let error = load(folder.path(), &other).expect_err("the shape differs").to_string();
        assert!(error.contains("[3]") && error.contains("[2]"), "{error}");
        let path = folder.path().join(FILE);
        let bytes = std::fs::read(&path)?;
        std::fs::write(&path, &bytes[..bytes.len() - 1])?;
        assert!(matches!(load(folder.path(), &variables([0.0; 3])?), Err(DistillError::Checkpoint { .. })));
        Ok(())
    }
}
