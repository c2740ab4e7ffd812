//! Models written for other programs, each read back and compared.

mod assumed;
mod check;
mod error;
mod format;
mod layer_names;
mod lora;
mod request;
mod single_file;

pub use error::ExportError;
pub use format::{FORMATS, Format};
pub use lora::{Lora, RenamedLora};
pub use request::{Export, ExportRequest, remap_beside};
