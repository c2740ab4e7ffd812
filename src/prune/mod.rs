//! Selections applied to models, and models written for other programs.
//!
//! Kept tensors keep their types and bytes, until a reconstruction solves some of them anew. By default they keep their names too, and the U-Net's folder contains a short
//! Python class with which diffusers builds the pruned network at its true size. An export may renumber layers and pad
//! what a loader requires ([`Format`]).

mod apply;
mod container;
mod directory;
mod error;
mod export;
mod reconstruct;
mod remap;
mod write_error;

pub use apply::apply;
pub use container::Container;
pub use directory::write_maps;
pub use error::ApplyError;
pub use export::{Export, ExportError, ExportRequest, FORMATS, Format, Lora, RenamedLora, remap_beside};
pub use reconstruct::{
    FILE as RECONSTRUCTION_FILE, LayerRecord, ReconstructError, Reconstructing, Reconstruction,
};
pub use remap::Remap;
pub use write_error::WriteError;
