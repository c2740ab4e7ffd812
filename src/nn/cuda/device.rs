//! Which machine runs the kernels for a tensor.

use candle_core::{Device, Result, Tensor, bail};

use super::machine::{Arriving, Machine};

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

/// Sends the numbers of a contiguous f32 tensor to the host, in the order of the launches.
pub(in crate::nn) fn copy_to_host(tensor: &Tensor) -> Result<Box<dyn Arriving>> {
    match tensor.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => super::card::Card::new(device)?.copy_to_host(tensor),
        #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
        Device::Cpu => super::tests::copy_to_host(tensor),
        other => bail!("BUG: there are no kernels of ours for {other:?}"),
    }
}

/// A copy of a tensor on another device, in the order of the launches. A GPU is not waited for if the tensor is f32 of the host, of
/// at most 256 MiB.
pub(in crate::nn) fn send(tensor: &Tensor, device: &Device) -> Result<Tensor> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) if super::sending::takes(tensor) => {
            super::card::Card::new(device)?.send(&tensor.contiguous()?)
        }
        device => tensor.to_device(device),
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
