//! Every criterion against a computation that shares no code with it; together, alone and interrupted.

mod delta_clip;
mod gradients;
mod model;
mod repaired;
mod task;
mod together;
