//! Finds numbers that are not finite in the results of a model's parts, before they are painted, scored or kept.

use candle_core::{DType, Result, Tensor};

/// The first infinity or NaN of a tensor [rows, ..]: its row, and its value.
///
/// Meant for what leaves a part of a model: states, latents, pictures. Next to the part itself, the copy costs nothing.
pub fn first_not_finite(tensor: &Tensor) -> Result<Option<(usize, f32)>> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let index = values.iter().position(|value| !value.is_finite());
    index.map(|index| Ok((index * tensor.dim(0)? / values.len(), values[index]))).transpose()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_row_is_found() -> Result<()> {
        let rows = [[1f32, 2.0], [3.0, f32::INFINITY], [f32::NAN, 4.0]];
        let tensor = Tensor::new(&rows, &Device::Cpu)?;
        assert_eq!(first_not_finite(&tensor)?, Some((1, f32::INFINITY)));
        assert_eq!(first_not_finite(&tensor.narrow(0, 0, 1)?)?, None);
        // f16 ends at 65504.
        let half = Tensor::new(&[[1f32, 70000.0]], &Device::Cpu)?.to_dtype(DType::F16)?;
        assert_eq!(first_not_finite(&half)?, Some((0, f32::INFINITY)));
        Ok(())
    }
}
