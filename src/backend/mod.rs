//! The only module that depends on the device: devices, threads, random numbers, memory.

pub mod device;
pub mod dtype;
pub mod memory;
pub mod random;
pub mod threads;

pub use device::{DeviceChoice, DeviceClass};
pub use dtype::Dtype;
pub use random::Random;
