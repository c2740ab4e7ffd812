//! Why a report cannot be written.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;

use crate::base::FileError;
use crate::cache::CacheError;

/// Why a report cannot be written.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ReportError {
    /// The folder is not that of a run.
    #[error("{} is not a run folder: {source}", path.display())]
    #[diagnostic(
        code(report::no_run),
        help("give a folder that `laptop-diff run` wrote, such as runs/nano50")
    )]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// Why its `run.json` cannot be read.
        source: io::Error,
    },
    /// The record of the run is damaged.
    #[error("{source}")]
    #[diagnostic(
        code(report::damaged_record),
        help("run the pipeline again: it writes the record anew, and stages that are cached do not run")
    )]
    DamagedRecord {
        /// What is wrong with which file.
        source: io::Error,
    },
    /// The page is written, but artefacts that it should show are damaged.
    #[error("{} lacks what is damaged:\n{}", page.display(), damaged.join("\n"))]
    #[diagnostic(
        code(report::damaged),
        help(
            "run the pipeline again, which makes damaged artefacts again; --force ID also measures times again"
        )
    )]
    Damaged {
        /// The page.
        page: PathBuf,
        /// What is wrong with which file.
        damaged: Vec<String>,
    },
    /// Artefacts that the tables need are damaged.
    #[error("the tables lack what is damaged:\n{}", damaged.join("\n"))]
    #[diagnostic(
        code(report::damaged_tables),
        help("run the pipeline again, which makes damaged artefacts again")
    )]
    DamagedTables {
        /// What is wrong with which file.
        damaged: Vec<String>,
    },
    /// The runs have no such table.
    #[error("these runs have no table `{name}`; they have: {found}")]
    #[diagnostic(
        code(report::no_table),
        help("`settings` needs two runs, `results` an evaluation, `gates` a `gates:` in it")
    )]
    NoTable {
        /// The name that was asked for.
        name: String,
        /// The tables that they have.
        found: String,
    },
    /// The cache cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cache(#[from] CacheError),
    /// The page could not be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Write(#[from] FileError),
}
