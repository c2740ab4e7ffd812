//! The linear map that makes up best for a removed unit.

use candle_core::{DType, Device, Result, Tensor};

use crate::nn::{Conv2d, Linear, add};

/// What is added to the state without a unit, from the state before the unit.
#[derive(Clone, Debug)]
pub(super) struct Repair(Map);

#[derive(Clone, Debug)]
enum Map {
    /// A 1x1 convolution.
    Pixels(Conv2d),
    Tokens(Linear),
}

impl Repair {
    /// `weight` [out, in] and `bias` `[out]`, for `tokens` or for an image.
    pub(super) fn new(
        weight: &Tensor,
        bias: &Tensor,
        tokens: bool,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let here = |tensor: &Tensor| tensor.to_device(device)?.to_dtype(dtype);
        let (weight, bias) = (here(weight)?, Some(here(bias)?));
        Ok(Self(match tokens {
            true => Map::Tokens(Linear { weight, bias }),
            false => {
                let (out, input) = weight.dims2()?;
                let weight = weight.reshape((out, input, 1, 1))?;
                Map::Pixels(Conv2d { weight, bias, stride: 1, padding: 0 })
            }
        }))
    }

    /// The state after the repaired removal, from the states without the unit and before it.
    pub(super) fn onto(&self, without: &Tensor, before: &Tensor) -> Result<Tensor> {
        let change = match &self.0 {
            Map::Pixels(conv) => conv.forward(before)?,
            Map::Tokens(linear) => linear.forward(before)?,
        };
        add(without, &change)
    }
}
