//! The change of a layer's weights: least squares with a ridge. Its strength is the one with the least error on the points
//! that are held out.

use candle_core::{DType, Result, Tensor};

use super::blocks::Rows;
use super::normal::Normal;

/// The strengths that are tried, relative to the mean of the diagonal without the bias, which has no ridge. On the small
/// model with 448 points the best lie between 1e-5 and 1e-2 (2026-11).
const STRENGTHS: [f64; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
/// A ridge of the bias, for matrices that are not of full rank without one.
const TINY: f64 = 1e-12;

/// The weights of a linear layer before a change, in f64 on the host, and the types to which new ones are rounded.
pub struct Layer {
    /// [outputs, inputs], or [outputs, inputs, kernel, kernel].
    pub weight: Tensor,
    /// `[outputs]`
    pub bias: Tensor,
    /// The types of weight and bias.
    pub dtypes: (DType, DType),
}

/// The best change of a layer.
pub struct Change {
    /// The new weight and bias, in the types and shapes of the layer.
    pub weights: (Tensor, Tensor),
    /// The strength of the ridge.
    pub strength: f64,
    /// The squared error on the held-out points, summed over positions and outputs.
    pub error: f64,
}

impl Change {
    /// The change with the least error on `held` among those that fit `fitted`; none if no error is finite.
    pub fn best(layer: &Layer, fitted: &Normal, held: &Normal) -> Result<Option<Self>> {
        let diagonal = fitted.features.diagonal()?;
        let (_, own) = diagonal.split_last().expect("BUG: a layer has a bias");
        let mean = own.iter().sum::<f64>() / own.len().max(1) as f64;
        let positions = diagonal.last().copied().unwrap_or(1.0);
        let mut best: Option<Self> = None;
        for strength in STRENGTHS {
            let mut ridge = vec![strength * mean.max(f64::MIN_POSITIVE); own.len()];
            ridge.push(TINY * positions);
            let Some(factor) = fitted.features.with_diagonal(&ridge)?.factor()? else { continue };
            let change = factor.solve(&fitted.products)?.whole()?;
            let weights = layer.changed(&change)?;
            let error = held.error(&Rows::of(&layer.change_to(&weights)?)?)?;
            if best.as_ref().is_none_or(|best| error < best.error) {
                best = Some(Self { weights, strength, error });
            }
        }
        Ok(best.filter(|best| best.error.is_finite()))
    }
}

impl Layer {
    /// The weights after a change [inputs + 1, outputs], rounded to the stored types.
    fn changed(&self, change: &Tensor) -> Result<(Tensor, Tensor)> {
        let inputs = change.dim(0)? - 1;
        let weight = change.narrow(0, 0, inputs)?.t()?.contiguous()?.reshape(self.weight.shape())?;
        let bias = change.narrow(0, inputs, 1)?.reshape(self.bias.shape())?;
        let weight = (&self.weight + weight)?.to_dtype(self.dtypes.0)?;
        Ok((weight, (&self.bias + bias)?.to_dtype(self.dtypes.1)?))
    }

    /// The change that leads to such weights.
    fn change_to(&self, (weight, bias): &(Tensor, Tensor)) -> Result<Tensor> {
        let weight = (weight.to_dtype(DType::F64)? - &self.weight)?;
        let outputs = weight.dim(0)?;
        let weight = weight.reshape((outputs, ()))?.t()?.contiguous()?;
        let bias = (bias.to_dtype(DType::F64)? - &self.bias)?.reshape((1, outputs))?;
        Tensor::cat(&[weight, bias], 0)
    }
}
