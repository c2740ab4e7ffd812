//! Continues a backward pass that began elsewhere.

use candle_core::{DType, Result, Tensor, bail};

use super::composed::{self, Composed};

/// A scalar of value 0 with this gradient with respect to `tensor`: the gradient of a loss that was computed elsewhere.
/// A sum of such scalars continues a backward pass below `tensor`.
pub fn seed(tensor: &Tensor, gradient: Tensor) -> Result<Tensor> {
    if tensor.dims() != gradient.dims() {
        bail!("the gradient of {:?} cannot be {:?}", tensor.dims(), gradient.dims())
    }
    composed::apply1(Seed(gradient), tensor)
}

struct Seed(Tensor);

impl Composed<1> for Seed {
    const NAME: &'static str = "seed";

    fn forward(&self, [tensor]: &[Tensor; 1]) -> Result<Tensor> {
        Tensor::zeros((), DType::F32, tensor.device())
    }

    fn backward(&self, _: &[Tensor; 1], _: &Tensor, _: &Tensor, _: [bool; 1]) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(self.0.clone())])
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::backward;

    #[test]
    fn two_passes_are_one() -> Result<()> {
        let x = Var::new(&[1f32, -2.0, 3.0], &Device::Cpu)?;
        let whole = backward(&x.sqr()?.sqr()?.sum_all()?)?;
        let middle = Var::from_tensor(&x.sqr()?.detach())?;
        let upper = backward(&middle.sqr()?.sum_all()?)?;
        let seeded = seed(&x.sqr()?, upper.get(&middle).expect("it was used").clone())?;
        assert_eq!(seeded.to_scalar::<f32>()?, 0.0);
        let lower = backward(&seeded)?;
        let numbers = |gradient: Option<&Tensor>| gradient.expect("it was used").to_vec1::<f32>();
        assert_eq!(numbers(lower.get(&x))?, numbers(whole.get(&x))?);
        assert!(seed(&x, Tensor::zeros(2, DType::F32, &Device::Cpu)?).is_err());
        Ok(())
    }
}
