//! The kernels on a CPU: each against the layers of `nn` in f64, and under five schedules with the same bits.
//!
//! g++ compiles the kernels to a library with `emulation/library.cpp`. [`sanitizers`] runs the same tests again with
//! the library built for AddressSanitizer and ThreadSanitizer, and [`planted`] damages a kernel in ways that each of
//! them must notice.

mod attention;
mod buffer;
mod case;
mod columns;
mod emulator;
mod f16;
mod geglu;
mod layers;
mod memory;
mod norms;
mod optimiser;
mod planted;
mod sanitizers;

pub(in crate::nn) use emulator::Emulator;
pub(in crate::nn) use memory::copy_to_host;
pub(crate) use memory::{Traffic, copies_to_host, emulating};
