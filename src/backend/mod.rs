//! The only place that knows which device we run on: devices, random numbers, memory.

pub mod device;
pub mod memory;
pub mod random;

pub use device::{DeviceClass, DeviceChoice};
pub use random::Random;
