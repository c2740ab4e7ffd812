//! One self-contained HTML page from one or more run folders.
//!
//! The page needs no network and no other file: pictures are inline PNG, plots inline SVG, and there is no script.
//! maud escapes every text that comes from a file.

mod chart;
mod curves;
mod digits;
mod due;
mod embedded;
mod error;
mod folder;
mod page;
mod quality;
mod rows;
mod sections;
mod selections;
mod sweep;
mod training;
mod unet;
mod verdict;

use std::path::{Path, PathBuf};

use crate::base::{FileError, files};

pub use due::is_due;
pub use error::ReportError;
use folder::Folder;

/// The name of a run's own page in its folder.
pub const FILE: &str = "report.html";

/// Writes the page of `runs` to `out`. The error [`ReportError::Damaged`] comes after the page is written.
pub fn write(runs: &[PathBuf], out: &Path) -> Result<(), ReportError> {
    let folders: Vec<Folder> = runs.iter().map(|path| Folder::open(path)).collect::<Result<_, _>>()?;
    let html = page::page(&folders).into_string();
    files::write_atomic(out, html.as_bytes()).map_err(FileError::at(out))?;
    let damaged: Vec<String> = folders.into_iter().flat_map(|folder| folder.damaged).collect();
    match damaged.is_empty() {
        true => Ok(()),
        false => Err(ReportError::Damaged { page: out.to_owned(), damaged }),
    }
}
