//! Copies from a GPU to the host that nobody waits for until their numbers are read.

use std::mem;
use std::sync::{Arc, Mutex};

use candle_core::cuda_backend::cudarc::driver::{CudaEvent, PinnedHostSlice};
use candle_core::{CudaDevice, Error, Result, Storage, Tensor, bail};

use super::failure::failed;
use super::machine::Arriving;

const NO_PANIC: &str = "nothing panics while it holds the lock";

/// Memory of the host that a GPU can write to while the host does something else. It is kept: to ask for it waits for the GPU.
pub(super) type Rooms = Mutex<Vec<PinnedHostSlice<f32>>>;

/// A copy under way.
struct Copy {
    room: Option<PinnedHostSlice<f32>>,
    done: CudaEvent,
    rooms: Arc<Rooms>,
}

/// Starts a copy of a contiguous f32 tensor.
pub(super) fn start(device: &CudaDevice, rooms: &Arc<Rooms>, tensor: &Tensor) -> Result<Box<dyn Arriving>> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(storage), Some((first, end))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("BUG: only contiguous numbers of a GPU are copied to the host, found {layout:?}")
    };
    let numbers = storage.as_cuda_slice::<f32>()?.slice(first..end);
    let failed = |error| failed("a copy to the host", error);
    let stream = device.cuda_stream();
    let mut room = match room(rooms, end - first) {
        Some(room) => room,
        // SAFETY: its numbers are read after a copy has written them.
        None => unsafe { stream.context().alloc_pinned_with_flags(end - first, 0) }.map_err(failed)?,
    };
    stream.memcpy_dtoh(&numbers, &mut room).map_err(failed)?;
    let done = stream.record_event(None).map_err(failed)?;
    Ok(Box::new(Copy { room: Some(room), done, rooms: rooms.clone() }))
}

/// A room of exactly this length, which is what a copy fills.
fn room(rooms: &Rooms, length: usize) -> Option<PinnedHostSlice<f32>> {
    let mut rooms = rooms.lock().expect(NO_PANIC);
    let place = rooms.iter().position(|room| room.len() == length)?;
    Some(rooms.swap_remove(place))
}

impl Arriving for Copy {
    fn wait(self: Box<Self>) -> Result<Vec<f32>> {
        let failed = |error| -> Error { failed("a copy to the host", error) };
        self.done.synchronize().map_err(failed)?;
        let room = self.room.as_ref().expect("it is taken when this is dropped");
        Ok(room.as_slice().map_err(failed)?.to_vec())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        match (self.room.take(), self.done.synchronize()) {
            (Some(room), Ok(())) => self.rooms.lock().expect(NO_PANIC).push(room),
            // The GPU may still write to it, or is lost; either way nobody gets this memory again.
            (room, _) => mem::forget(room),
        }
    }
}
