//! Numbers on their way between the host and a device. To read a tensor of a GPU is to wait for all work that was queued before;
//! to send for its numbers is not, and they are read once later work is queued.

use candle_core::{Device, Result, Tensor};

use super::cuda::{self, Arriving};

/// A copy of a tensor on another device. Tensors in f32 go from the host to a GPU without a wait for it, up to 256 MiB.
pub fn to_device(tensor: &Tensor, device: &Device) -> Result<Tensor> {
    cuda::send(tensor, device)
}

/// Numbers that can be read later.
pub struct Later(Source);

enum Source {
    /// Their tensor, not on a GPU.
    Here(Tensor),
    Arriving(Box<dyn Arriving>),
}

impl Later {
    /// Sends the numbers of a contiguous f32 tensor to the host.
    pub fn send(tensor: &Tensor) -> Result<Self> {
        match cuda::has_kernels(tensor.device()) {
            true => cuda::copy_to_host(tensor).map(Source::Arriving).map(Self),
            false => Ok(Self(Source::Here(tensor.detach()))),
        }
    }

    /// The numbers. Waits until they have arrived, but not for work that was queued after them.
    pub fn read(self) -> Result<Vec<f32>> {
        match self.0 {
            Source::Here(tensor) => tensor.flatten_all()?.to_vec1(),
            Source::Arriving(numbers) => numbers.wait(),
        }
    }
}
