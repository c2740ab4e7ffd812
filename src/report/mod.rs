//! One self-contained HTML page from one or more run folders.
//!
//! The page needs no network and no other file: pictures are inline PNG, plots inline SVG, and there is no script.
//! maud escapes every text that comes from a file.

mod chart;
mod curves;
mod folder;
mod page;
mod quality;
mod sections;
mod selections;
mod sweep;
mod unet;

use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

use crate::base::files;

use folder::Folder;

/// Why there is no report.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ReportError {
    /// A folder that is no run's.
    #[error("{} is no run folder: {source}", path.display())]
    #[diagnostic(
        code(report::no_run),
        help("name a folder such as runs/nano50, which `laptop-diff run` made")
    )]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// Why its `run.json` cannot be read.
        source: io::Error,
    },
    /// The page.
    #[error("cannot write {}: {source}", path.display())]
    #[diagnostic(code(report::write))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The name of a run's own page in its folder.
pub const FILE: &str = "report.html";

/// Writes the page of `runs` to `out`.
pub fn write(runs: &[PathBuf], out: &Path) -> Result<(), ReportError> {
    let folders: Vec<Folder> = runs.iter().map(|path| Folder::open(path)).collect::<Result<_, _>>()?;
    let html = page::page(&folders).into_string();
    files::write_atomic(out, html.as_bytes())
        .map_err(|source| ReportError::Write { path: out.to_owned(), source })
}
