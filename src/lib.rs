//! `laptop-diff`: compress the U-Nets of Stable Diffusion from one YAML file.
//!
//! The modules are listed from the ground up; each imports only modules above it, and
//! `tests/architecture.rs` fails on an import that goes the other way.

pub mod backend;
pub mod base;
pub mod cache;
pub mod cli;
pub mod config;
pub mod data;
pub mod distill;
pub mod metric;
pub mod model;
pub mod nn;
pub mod plan;
pub mod prune;
pub mod report;
pub mod run;
pub mod sample;
pub mod score;
pub mod select;
pub mod stage;
pub mod ui;
