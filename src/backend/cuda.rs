//! Opens a GPU for tensors.
//!
//! candle is linked with the names of CUDA's functions; `loader` opens the libraries behind them at run time.

mod functions;
mod loader;
mod slots;

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use candle_core::cuda_backend::{gemm_reduced_precision_f32, set_gemm_reduced_precision_f32};
use candle_core::{Device, DeviceLocation, Result};

use super::driver::{self, driver};
use super::nccl::{IsDone, Stream};

/// Whether the program was built with CUDA.
pub(super) const BUILT: bool = true;

/// Loads the libraries and asks the driver for a GPU; says what is missing.
pub(super) fn available() -> std::result::Result<(), String> {
    static AVAILABLE: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let ask = || {
        let driver = driver().map_err(str::to_owned)?;
        driver.check_version(slots::BUILT_WITH)?;
        match driver.cards()?.is_empty() {
            true => Err("the driver finds no GPU".to_owned()),
            false => loader::load(),
        }
    };
    AVAILABLE.get_or_init(ask).clone()
}

/// The libraries that the program uses and that this machine lacks.
pub fn missing_libraries() -> Vec<String> {
    loader::missing()
}

/// The stream of a GPU, and whether all work on it is done.
pub fn stream_of(device: &Device) -> Option<(Stream, IsDone)> {
    let (Device::Cuda(cuda), DeviceLocation::Cuda { gpu_id }) = (device, device.location()) else {
        return None;
    };
    let (driver, stream) = (driver().ok()?, Stream(cuda.cuda_stream().cu_stream().cast()));
    // SAFETY: it is the stream of that device, which stays open until the process ends.
    let is_done = move || unsafe { driver.is_done(gpu_id, stream) };
    Some((stream, Box::new(is_done)))
}

/// Whether products in f32 are in TF32.
pub(super) fn rounds_to_tf32() -> bool {
    gemm_reduced_precision_f32()
}

/// Opens a GPU, once: a second call gives the same device. With `tf32`, products in f32 are in TF32 from then on, on all GPUs
/// of this process, which opens one.
///
/// All work of a device goes to one stream, whatever thread it comes from. candle's default is a stream per thread of the
/// host, between which nothing is ordered: a tensor made by one thread and read by another would race. With one stream,
/// the events that order several are of no use, and cost two calls of the driver per tensor.
pub(super) fn open(index: usize, tf32: bool) -> Result<Device> {
    set_gemm_reduced_precision_f32(tf32);
    static OPEN: OnceLock<Mutex<HashMap<usize, Device>>> = OnceLock::new();
    let mut open = OPEN.get_or_init(Mutex::default).lock().expect("nothing panics while it holds the lock");
    if let Some(device) = open.get(&index) {
        return Ok(device.clone());
    }
    let device = Device::new_cuda_with_stream(index)?;
    // SAFETY: the device has one stream, made above, and no other is made anywhere.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    // Without it the pool is slower, and nothing else changes.
    let _ = driver::driver().map(|driver| driver.keep_freed(index));
    open.insert(index, device.clone());
    Ok(device)
}
