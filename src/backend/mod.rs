//! The only place that knows which device we run on: devices, threads, random numbers, memory.

pub mod device;
pub mod dtype;
pub mod memory;
pub mod random;
pub mod threads;

pub use device::{DeviceChoice, DeviceClass};
pub use dtype::Dtype;
pub use random::Random;
