//! What holds everywhere: the structure of the source, what enters a key, agreement with diffusers at full size.

mod architecture;
mod freshness;
mod parity;
