//! Optimiser moments in 8 bits. Each block of 256 numbers has one scale, its largest magnitude, and each number a code `q`:
//! the number is `scale (q / Q)^4`, with Q = 127 and a sign for the first moment, and Q = 255 for the second. (q / Q)^4
//! resolves numbers of very different size, as the dynamic tree of Dettmers et al. 2022 (arXiv 2110.02861) does, and is
//! computed by two roots on any device; the power is ours.

use candle_core::{DType, Device, Result, Tensor, Var};

/// Numbers with one scale.
pub const BLOCK: usize = 256;

/// Codes and scales of the numbers of one tensor.
pub struct Blockwise {
    /// [blocks * BLOCK], u8; those beyond the tensor's end are zero.
    pub codes: Var,
    /// `[blocks]`, f32.
    pub scales: Var,
    sign: Sign,
}

/// Whether numbers below zero occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The mean of the gradients: code 128 is zero.
    Signed,
    /// The mean of their squares: code 0 is zero.
    Unsigned,
}

impl Blockwise {
    /// `count` zeros.
    pub fn zeros(count: usize, sign: Sign, device: &Device) -> Result<Self> {
        let blocks = count.div_ceil(BLOCK);
        let scales = Var::zeros(blocks, DType::F32, device)?;
        let zero = if sign == Sign::Signed { 128u8 } else { 0 };
        let codes = Var::from_tensor(&Tensor::full(zero, blocks * BLOCK, device)?)?;
        Ok(Self { codes, scales, sign })
    }

    /// The numbers, as a tensor like `parameter`.
    pub(super) fn decode(&self, parameter: &Tensor) -> Result<Tensor> {
        let codes = self.codes.as_detached_tensor().to_dtype(DType::F32)?.reshape(((), BLOCK))?;
        let parts = match self.sign {
            Sign::Signed => ((codes - 128.0)? / 127.0)?,
            Sign::Unsigned => (codes / 255.0)?,
        };
        let power = (parts.sqr()? * (&parts * parts.abs()?)?)?;
        let numbers = power.broadcast_mul(&self.scales.as_detached_tensor().unsqueeze(1)?)?.flatten_all()?;
        numbers.narrow(0, 0, parameter.elem_count())?.reshape(parameter.shape())?.to_dtype(parameter.dtype())
    }

    /// Replaces the numbers.
    pub(super) fn encode(&self, numbers: &Tensor) -> Result<()> {
        let numbers = numbers.flatten_all()?.to_dtype(DType::F32)?;
        let missing = self.codes.elem_count() - numbers.elem_count();
        let blocks = numbers.pad_with_zeros(0, 0, missing)?.reshape(((), BLOCK))?;
        let magnitudes = blocks.abs()?;
        let scales = magnitudes.max_keepdim(1)?;
        let root =
            magnitudes.broadcast_div(&scales.maximum(f64::from(f32::MIN_POSITIVE))?)?.sqrt()?.sqrt()?;
        let codes = match self.sign {
            Sign::Signed => (((root * 127.0)?.round()? * blocks.sign()?)? + 128.0)?,
            // A second moment of zero would let the first move the weight without limit.
            Sign::Unsigned => (root * 255.0)?.round()?.maximum(&magnitudes.gt(0.0)?.to_dtype(DType::F32)?)?,
        };
        self.codes.set(&codes.to_dtype(DType::U8)?.flatten_all()?)?;
        self.scales.set(&scales.flatten_all()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_numbers_of_very_different_size() -> Result<()> {
        for (sign, of_one, of_little) in [(Sign::Signed, 0.017, 0.2), (Sign::Unsigned, 0.009, 0.1)] {
            // From 1 down to 1e-6, in two blocks, the second not full.
            let numbers: Vec<f32> = (0..300).map(|i| 10f32.powf(-6.0 * (i % 256) as f32 / 255.0)).collect();
            let signed = |i: usize| if sign == Sign::Signed && i % 2 == 1 { -numbers[i] } else { numbers[i] };
            let numbers: Vec<f32> = (0..300).map(signed).collect();
            let tensor = Tensor::new(numbers.as_slice(), &Device::Cpu)?;
            let moments = Blockwise::zeros(300, sign, &Device::Cpu)?;
            assert_eq!(moments.decode(&tensor)?.to_vec1::<f32>()?, [0f32; 300]);
            moments.encode(&tensor)?;
            for (found, number) in moments.decode(&tensor)?.to_vec1::<f32>()?.iter().zip(&numbers) {
                let off = ((found - number) / number).abs();
                let most = if number.abs() > 0.9 {
                    of_one
                } else if number.abs() > 1e-4 {
                    of_little
                } else {
                    1.0
                };
                assert!(off <= most, "{sign:?}: {number} became {found}");
            }
        }
        Ok(())
    }
}
