//! The only module that depends on the device: devices, threads, random numbers, memory.
//!
//! `driver` asks NVIDIA's driver itself. `cuda` opens a GPU for tensors; without the feature of that name it says so.

pub mod amx;
pub mod caches;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "no_cuda.rs"]
mod cuda;
pub mod device;
pub mod driver;
pub mod dtype;
mod library;
pub mod machine;
pub mod memory;
pub mod nccl;
pub mod random;
pub mod threads;

pub use cuda::{missing_libraries, stream_of};
pub use device::{DeviceChoice, DeviceClass, Devices};
pub use dtype::Dtype;
pub use random::Random;
