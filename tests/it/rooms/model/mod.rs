//! Models against diffusers and transformers: golden numbers, laws of pruning, hostile files.

mod checkpoint;
mod clip;
mod config;
mod golden;
mod hostile;
mod mutated;
mod open_clip;
mod pruning;
mod scorers;
mod survey;
mod text;
mod unet;
mod vae;
