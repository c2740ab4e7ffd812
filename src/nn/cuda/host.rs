//! The host's memory, in which the tests' emulation runs kernels.

use candle_core::{CpuStorage, Result, bail};

/// The address of the first number.
pub(super) fn address(storage: &CpuStorage) -> Result<u64> {
    Ok(match storage {
        CpuStorage::BF16(numbers) => numbers.as_ptr() as u64,
        CpuStorage::F32(numbers) => numbers.as_ptr() as u64,
        CpuStorage::F64(numbers) => numbers.as_ptr() as u64,
        CpuStorage::U8(numbers) => numbers.as_ptr() as u64,
        _ => bail!("BUG: no kernel of ours reads this type"),
    })
}
