//! Where the numbers of a tensor are: on a card, or in the host's memory, in which the tests' emulation runs kernels.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::CudaStorageSlice;
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{CpuStorage, Result, bail};

/// The address of the first number.
pub(super) fn on_host(storage: &CpuStorage) -> Result<u64> {
    Ok(match storage {
        CpuStorage::BF16(numbers) => numbers.as_ptr() as u64,
        CpuStorage::F16(numbers) => numbers.as_ptr() as u64,
        CpuStorage::F32(numbers) => numbers.as_ptr() as u64,
        CpuStorage::F64(numbers) => numbers.as_ptr() as u64,
        CpuStorage::U8(numbers) => numbers.as_ptr() as u64,
        _ => bail!("BUG: no kernel of ours reads this type"),
    })
}

/// The same on a card.
#[cfg(feature = "cuda")]
pub(super) fn on_card(storage: &CudaStorage) -> Result<u64> {
    // The device has one stream and no events, so there is nothing to wait for.
    macro_rules! of {
        ($slice:ident) => {
            $slice.device_ptr($slice.stream()).0
        };
    }
    Ok(match &storage.slice {
        CudaStorageSlice::BF16(slice) => of!(slice),
        CudaStorageSlice::F16(slice) => of!(slice),
        CudaStorageSlice::F32(slice) => of!(slice),
        CudaStorageSlice::F64(slice) => of!(slice),
        CudaStorageSlice::U8(slice) => of!(slice),
        _ => bail!("BUG: no kernel of ours reads this type"),
    })
}
