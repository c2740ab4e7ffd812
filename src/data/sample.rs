//! One sample of a data set: where its bytes lie and what is known of it before they are read.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::table::Table;

/// What a source holds.
#[derive(Debug, Default)]
pub struct Found {
    /// The samples, in an order that depends on their names alone.
    pub candidates: Vec<Candidate>,
    /// What looks like a sample and cannot be one.
    pub left_out: Vec<LeftOut>,
    /// What else the user should know.
    pub notes: Vec<String>,
}

/// A sample that may be drawn.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name inside the source, with `/`.
    pub name: String,
    /// Its caption in one line; empty if it has none.
    pub caption: String,
    /// How often it is trained in each epoch.
    pub repeats: u32,
    /// Where its bytes are.
    pub place: Place,
}

/// A sample that is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name inside the source.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Where the bytes of a sample are.
#[derive(Clone, Debug)]
pub enum Place {
    /// Nowhere: the teacher draws it.
    Drawn,
    /// A file of its own.
    File(PathBuf),
    /// A part of an archive.
    Part {
        /// The archive.
        archive: Archive,
        /// Where it begins.
        start: u64,
        /// Its length.
        bytes: u64,
    },
    /// A row of a table.
    Row {
        /// The table.
        table: Arc<Table>,
        /// The row, from 0.
        row: usize,
    },
}

/// A file that holds many samples.
#[derive(Clone, Debug)]
pub enum Archive {
    /// On disk, opened for each sample: there may be more of them than files that may be open.
    Path(Arc<PathBuf>),
    /// A copy without compression, which is deleted when it is closed.
    Unpacked(Arc<File>),
}
