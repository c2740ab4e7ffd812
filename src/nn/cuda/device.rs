//! Which machine runs the kernels for a tensor.

use candle_core::{Device, Result, bail};

use super::machine::Machine;

/// The machine of this device.
pub(in crate::nn) fn machine(device: &Device) -> Result<Box<dyn Machine>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => Ok(Box::new(super::card::Card::new(device)?)),
        #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
        Device::Cpu => Ok(Box::new(super::tests::Emulator::of_thread()?)),
        other => bail!("BUG: there are no kernels of ours for {other:?}"),
    }
}

/// Whether the layers of this thread use the kernels for tensors on this device.
pub(in crate::nn) fn has_kernels(device: &Device) -> bool {
    match device {
        #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
        Device::Cpu => super::tests::Emulator::of_thread().is_ok(),
        device => device.is_cuda(),
    }
}
