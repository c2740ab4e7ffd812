//! The change of a layer's weights: least squares with a ridge. Its strength is the one with the least error on the points
//! that are held out; without less error than before, the weights stay as they are.

use candle_core::{DType, Device, Tensor};

use super::blocks::Rows;
use super::error::ReconstructError;
use super::normal::Normal;
use super::record::LayerRecord;
use crate::model::files::weights::Weights;
use crate::model::network::{Tail, TailKind};

/// The strengths that are tried, relative to the mean of the diagonal without the bias, which has no ridge. On the small
/// model with 448 points the best lie between 1e-5 and 1e-2 (2026-11).
const STRENGTHS: [f64; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
/// A ridge of the bias, for matrices that are not of full rank without one.
const TINY: f64 = 1e-12;

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
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{}.{part}", tail.name));
    let old = match tail.kind == TailKind::Linear && !weights.contains(&weight) {
        true => Old::identity(tail, weights)?,
        false => Old {
            weight: weights.tensor(&weight, DType::F64, &Device::Cpu)?,
            bias: weights.tensor(&bias, DType::F64, &Device::Cpu)?,
            dtypes: (weights.dtype(&weight)?, weights.dtype(&bias)?),
        },
    };
    let diagonal = fitted.features.diagonal()?;
    let (_, own) = diagonal.split_last().expect("BUG: a layer has a bias");
    let mean = own.iter().sum::<f64>() / own.len().max(1) as f64;
    let positions = diagonal.last().copied().unwrap_or(1.0);
    let mut best: Option<(f64, f64, (Tensor, Tensor))> = None;
    for strength in STRENGTHS {
        let mut ridge = vec![strength * mean.max(f64::MIN_POSITIVE); own.len()];
        ridge.push(TINY * positions);
        let Some(factor) = fitted.features.with_diagonal(&ridge)?.factor()? else { continue };
        let change = factor.solve(&fitted.products)?.whole()?;
        let new = old.changed(&change)?;
        let error = held.error(&Rows::of(&old.change_to(&new)?)?)?;
        if best.as_ref().is_none_or(|(least, ..)| error < *least) {
            best = Some((error, strength, new));
        }
    }
    // The mean over elements of the state after the layer.
    let elements = held.features.diagonal()?.last().copied().unwrap_or(1.0) * tail.outputs as f64;
    let (error, strength, new) = match best.filter(|(error, ..)| error.is_finite()) {
        Some((error, strength, new)) => (error, strength, Some(new)),
        None => (held.energy, 0.0, None),
    };
    let taken = error < held.energy;
    let (before, after) = (held.energy / elements, error.max(0.0) / elements);
    let record = LayerRecord { layer: tail.name.clone(), before, after, strength, taken };
    Ok(Solved { record, weights: new.filter(|_| taken) })
}

/// The weights of a layer as stored.
struct Old {
    weight: Tensor,
    bias: Tensor,
    dtypes: (DType, DType),
}

impl Old {
    /// A linear map that is not stored yet: the identity, in the type of the first weights.
    fn identity(tail: &Tail, weights: &Weights) -> Result<Self, ReconstructError> {
        let one = Tensor::eye(tail.inputs, DType::F64, &Device::Cpu)?;
        let is_conv = tail.name.ends_with("conv_shortcut");
        let weight = if is_conv { one.reshape((tail.outputs, tail.inputs, 1, 1))? } else { one };
        let stored = weights.dtype("conv_in.weight")?;
        let bias = Tensor::zeros(tail.outputs, DType::F64, &Device::Cpu)?;
        Ok(Self { weight, bias, dtypes: (stored, stored) })
    }

    /// The weights after a change [inputs + 1, outputs], rounded to the stored types.
    fn changed(&self, change: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        let inputs = change.dim(0)? - 1;
        let weight = change.narrow(0, 0, inputs)?.t()?.contiguous()?.reshape(self.weight.shape())?;
        let bias = change.narrow(0, inputs, 1)?.reshape(self.bias.shape())?;
        let weight = (&self.weight + weight)?.to_dtype(self.dtypes.0)?;
        Ok((weight, (&self.bias + bias)?.to_dtype(self.dtypes.1)?))
    }

    /// The change that leads to such weights.
    fn change_to(&self, (weight, bias): &(Tensor, Tensor)) -> candle_core::Result<Tensor> {
        let weight = (weight.to_dtype(DType::F64)? - &self.weight)?;
        let outputs = weight.dim(0)?;
        let weight = weight.reshape((outputs, ()))?.t()?.contiguous()?;
        let bias = (bias.to_dtype(DType::F64)? - &self.bias)?.reshape((1, outputs))?;
        Tensor::cat(&[weight, bias], 0)
    }
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
