//! What holds everywhere: the structure of the source, what adding a row takes, what enters a key, agreement with
//! diffusers at full size.

mod architecture;
mod collisions;
mod excerpts;
mod extending;
mod freshness;
mod imports;
mod numbers;
mod parity;
mod readbacks;
mod source;
