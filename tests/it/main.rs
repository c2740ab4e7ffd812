//! The tests that share one process: linking candle once costs less than linking it for each file.
//!
//! `cli` runs the real program, `snapshots` compares its whole output, `rooms` calls one module of the library each, and
//! `laws` hold for all of them. What needs a process of its own (memory, lazy loading, kills, the hub, a GPU) stands beside
//! this folder.

#[path = "../common/mod.rs"]
mod common;
#[path = "../diffusers/mod.rs"]
mod diffusers;
#[path = "../small_unets/mod.rs"]
mod small_unets;

mod cli;
mod laws;
mod rooms;
mod snapshots;
