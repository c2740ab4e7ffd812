//! Copies from the host to a GPU that nobody waits for. From ordinary memory, the driver may wait for all earlier work before it
//! takes more than 64 KiB, so the numbers go through memory that the GPU reads by itself.

use std::sync::Mutex;

use candle_core::cuda_backend::cudarc::driver::{CudaEvent, PinnedHostSlice};
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaDevice, CudaStorage, DType, Result, Storage, Tensor, bail};

use super::failure::failed;

const NO_PANIC: &str = "nothing panics while it holds the lock";

/// Memory of the host with the event after which the GPU has read it. It is kept: to ask for it waits for the GPU.
pub(super) type Sent = Mutex<Vec<(PinnedHostSlice<f32>, CudaEvent)>>;

/// The most numbers that are sent so: the memory for them is kept, and no other program can have it.
const MOST: usize = 1 << 26;

/// Whether this tensor can be sent so.
pub(super) fn takes(tensor: &Tensor) -> bool {
    let count = tensor.elem_count();
    tensor.device().is_cpu() && tensor.dtype() == DType::F32 && (1..=MOST).contains(&count)
}

/// Starts a copy of a contiguous f32 tensor of the host.
pub(super) fn send(device: &CudaDevice, sent: &Sent, tensor: &Tensor) -> Result<Tensor> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(numbers)), Some((first, end))) =
        (&*storage, layout.contiguous_offsets())
    else {
        bail!("BUG: only contiguous f32 of the host is sent to a GPU, found {layout:?}")
    };
    let (numbers, stream) = (&numbers[first..end], device.cuda_stream());
    let failed = |error| failed("a copy to the GPU", error);
    let mut room = match room(sent, numbers.len()) {
        Some(room) => room,
        // SAFETY: its numbers are read after they are written below.
        None => unsafe { stream.context().alloc_pinned_with_flags(numbers.len(), 0) }.map_err(failed)?,
    };
    room.as_mut_slice().map_err(failed)?.copy_from_slice(numbers);
    // SAFETY: the copy writes all of it, before anything that is queued later.
    let mut to = unsafe { device.alloc::<f32>(numbers.len())? };
    stream.memcpy_htod(&room, &mut to).map_err(failed)?;
    let read = stream.record_event(None).map_err(failed)?;
    sent.lock().expect(NO_PANIC).push((room, read));
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(to, device.clone()));
    Ok(Tensor::from_storage(storage, tensor.shape().clone(), BackpropOp::none(), false))
}

/// A room of this length that the GPU has read.
fn room(sent: &Sent, length: usize) -> Option<PinnedHostSlice<f32>> {
    let mut sent = sent.lock().expect(NO_PANIC);
    let place = sent.iter().position(|(room, read)| room.len() == length && read.is_complete())?;
    Some(sent.swap_remove(place).0)
}
