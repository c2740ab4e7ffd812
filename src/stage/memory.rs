//! Refuses work that cannot fit into memory before any of it is done. What is counted is a lower bound: only values
//! that exist at the same time, so nothing is refused that would have worked.

use candle_core::{DType, Device};
use miette::Diagnostic;

use crate::backend::memory;
use crate::base::units;
use crate::model::unet::UNetConfig;
use crate::model::vae::VaeConfig;

/// Less memory than something needs.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{what} take at least {}, but only {} of memory are free", units::bytes(*needed), units::bytes(*free))]
#[diagnostic(code(stage::memory), help("lower {lower}, or use a machine with more memory"))]
pub struct NotEnoughMemory {
    what: String,
    lower: &'static str,
    needed: u64,
    free: u64,
}

/// Fails unless `needed` bytes are free. `what` takes them, and the parameters in `lower` reduce them.
pub(super) fn require(
    needed: u64,
    device: &Device,
    what: impl FnOnce() -> String,
    lower: &'static str,
) -> Result<(), NotEnoughMemory> {
    let free = memory::free(device);
    match needed <= free {
        true => Ok(()),
        false => Err(NotEnoughMemory { what: what(), lower, needed, free }),
    }
}

/// The product of sizes; the largest number where it is larger.
pub(super) fn product(sizes: &[usize]) -> u64 {
    sizes.iter().fold(1, |product: u64, &size| product.saturating_mul(size as u64))
}

/// Bytes of a forward pass of `samples` samples with latents of this height and width.
pub(super) fn pass(unet: &UNetConfig, samples: usize, (height, width): (usize, usize), dtype: DType) -> u64 {
    let elements = unet.inventory().state_elements(height, width);
    elements.saturating_mul(product(&[samples, dtype.size_in_bytes()]))
}

/// Bytes of the two largest feature maps of an autoencoder, which exist at once. Large pictures go through it one by one.
pub(super) fn decoding(
    vae: &VaeConfig,
    samples: usize,
    (height, width): (usize, usize),
    dtype: DType,
) -> u64 {
    let (side, channels) = (vae.downscale(), vae.decoder_width());
    let pixels = usize::try_from(product(&[height, side, width, side])).unwrap_or(usize::MAX);
    let samples = samples.min(vae.pictures_at_once(pixels));
    product(&[2, channels, samples, height, side, width, side, dtype.size_in_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_with_its_size() {
        let needed = product(&[1 << 40, 1 << 40, 3]);
        assert_eq!(needed, u64::MAX);
        let refused =
            require(needed, &Device::Cpu, || "4 samples".to_owned(), "`batch`").expect_err("too much");
        assert!(refused.to_string().starts_with("4 samples take at least "), "{refused}");
        assert!(require(1, &Device::Cpu, || "1 byte".to_owned(), "`batch`").is_ok());
    }
}
