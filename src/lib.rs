//! `laptop-diff`: compress the U-Nets of Stable Diffusion from one YAML file.
//!
//! The modules are listed from the ground up; each imports only modules above it, and
//! `tests/it/laws/architecture.rs` fails on an import in the other direction. The empty lines keep rustfmt from sorting them.

pub mod base;

pub mod backend;

pub mod nn;

pub mod model;

pub mod sample;

pub mod survey;

pub mod data;

pub mod train;

pub mod score;

pub mod profile;

pub mod select;

pub mod prune;

pub mod distill;

pub mod metric;

pub mod stage;

pub mod cache;

pub mod config;

pub mod plan;

pub mod run;

pub mod slurm;

pub mod report;

pub mod tracking;

pub mod ui;

pub mod cli;
