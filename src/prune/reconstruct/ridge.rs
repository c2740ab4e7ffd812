//! A layer of the student solved anew. Without less error than before on the points that are held out, its weights stay as
//! they are.

use candle_core::{DType, Device, Tensor};

use super::error::ReconstructError;
use super::record::LayerRecord;
use crate::model::files::weights::Weights;
use crate::model::network::{Tail, TailKind};
use crate::nn::least_squares::{Change, Layer, Normal};

/// A layer that was solved.
pub(super) struct Solved {
    pub(super) record: LayerRecord,
    /// The new weight and bias in the types and shapes of the stored ones, if they are taken.
    pub(super) weights: Option<(Tensor, Tensor)>,
}

/// Solves a layer. `fitted` and `held` are the sums over the points that are fitted and held out.
pub(super) fn solve(
    tail: &Tail,
    weights: &Weights,
    fitted: &Normal,
    held: &Normal,
) -> Result<Solved, ReconstructError> {
    let best = Change::best(&stored(tail, weights)?, fitted, held)?;
    // The mean over elements of the state after the layer.
    let elements = held.positions()? * tail.outputs as f64;
    let (error, strength, new) = match best {
        Some(Change { weights, strength, error }) => (error, strength, Some(weights)),
        None => (held.energy, 0.0, None),
    };
    let taken = error < held.energy;
    let (before, after) = (held.energy / elements, error.max(0.0) / elements);
    let record = LayerRecord { layer: tail.name.clone(), before, after, strength, taken };
    Ok(Solved { record, weights: new.filter(|_| taken) })
}

/// The weights of a layer as stored. A linear map that is not stored yet is the identity, in the type of the first weights.
fn stored(tail: &Tail, weights: &Weights) -> Result<Layer, ReconstructError> {
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{}.{part}", tail.name));
    if tail.kind == TailKind::Linear && !weights.contains(&weight) {
        let one = Tensor::eye(tail.inputs, DType::F64, &Device::Cpu)?;
        let is_conv = tail.name.ends_with("conv_shortcut");
        let dtype = weights.dtype("conv_in.weight")?;
        return Ok(Layer {
            weight: if is_conv { one.reshape((tail.outputs, tail.inputs, 1, 1))? } else { one },
            bias: Tensor::zeros(tail.outputs, DType::F64, &Device::Cpu)?,
            dtypes: (dtype, dtype),
        });
    }
    Ok(Layer {
        weight: weights.tensor(&weight, DType::F64, &Device::Cpu)?,
        bias: weights.tensor(&bias, DType::F64, &Device::Cpu)?,
        dtypes: (weights.dtype(&weight)?, weights.dtype(&bias)?),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    /// torch's least squares on the same numbers; see `tests/golden_reconstruct/solve.py`.
    #[test]
    fn layers_are_solved_as_by_torch() -> Result<(), ReconstructError> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_reconstruct/solve.safetensors");
        let golden = Weights::open(&path)?;
        for (name, kernel, inputs, outputs) in [("conv", 3, 3, 4), ("linear", 1, 6, 5)] {
            let tensor = |part: &str| golden.tensor(&format!("{name}.{part}"), DType::F64, &Device::Cpu);
            let sums = |part: &str| -> Result<Normal, ReconstructError> {
                let mut sums = Normal::new(inputs * kernel * kernel, outputs)?;
                sums.add(&tensor(&format!("{part}.features"))?, kernel, &tensor(&format!("{part}.lack"))?)?;
                Ok(sums)
            };
            let tail = Tail { kind: TailKind::Conv2, name: name.to_owned(), kernel, inputs, outputs };
            let solved = solve(&tail, &golden, &sums("fitted")?, &sums("held")?)?;
            let expected: Vec<f64> = tensor("expected.errors")?.to_vec1()?;
            let LayerRecord { before, after, strength, taken, .. } = solved.record;
            assert!(taken && strength == expected[2], "{name}: {strength}");
            assert!((before / expected[0] - 1.0).abs() < 1e-9 && (after / expected[1] - 1.0).abs() < 1e-9);
            let (weight, bias) = solved.weights.expect("they are taken");
            for (found, part) in [(weight, "expected.weight"), (bias, "expected.bias")] {
                let off = (found - tensor(part)?)?.abs()?.max_all()?.to_scalar::<f64>()?;
                assert!(off < 1e-9, "{name}, {part}: {off}");
            }
        }
        Ok(())
    }

    #[test]
    fn weights_that_cannot_be_improved_stay() -> Result<(), ReconstructError> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_reconstruct/solve.safetensors");
        let golden = Weights::open(&path)?;
        let tensor = |part: &str| golden.tensor(&format!("linear.{part}"), DType::F64, &Device::Cpu);
        let sums = |sign: f64| -> Result<Normal, ReconstructError> {
            let mut sums = Normal::new(6, 5)?;
            sums.add(&tensor("fitted.features")?, 1, &(tensor("fitted.lack")? * sign)?)?;
            Ok(sums)
        };
        let tail =
            Tail { kind: TailKind::Projection, name: "linear".to_owned(), kernel: 1, inputs: 6, outputs: 5 };
        // What helps the fitted points harms the held-out ones.
        let solved = solve(&tail, &golden, &sums(1.0)?, &sums(-1.0)?)?;
        assert!(!solved.record.taken && solved.weights.is_none());
        Ok(())
    }
}
