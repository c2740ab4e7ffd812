//! Models written for other programs, each read back and compared.

mod check;
mod error;
mod format;
mod request;
mod single_file;

pub use error::ExportError;
pub use format::{FORMATS, Format};
pub use request::{Export, ExportRequest, remap_beside};
