//! One self-contained HTML page from one or more run folders, or its tables for other programs.
//!
//! The page needs no network and no other file: pictures and plots are inline, and the only script moves the slider between
//! two pictures. maud escapes every text that comes from a file.

mod agreement;
mod chart;
mod compare;
mod curves;
mod digits;
mod due;
mod embedded;
mod error;
mod folder;
mod overview;
mod page;
mod pictures;
mod quality;
mod reconstructed;
mod records;
mod rows;
mod sections;
mod selections;
mod sweep;
mod tables;
mod training;
mod unet;
mod values;
mod verdict;

use std::path::{Path, PathBuf};

use crate::base::{FileError, files};

pub use due::is_due;
pub use error::ReportError;
use folder::Folder;
pub use overview::{Headline, Overview, overview, state_of};
use tables::Table;

/// The name of a run's own page in its folder.
pub const FILE: &str = "report.html";

/// How the tables of a report are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Markdown, with numbers rounded for reading.
    Markdown,
    /// JSON: an object with a list of rows for each table.
    Json,
    /// Comma-separated values, one table.
    Csv,
}

/// The names of the tables that a report can have.
pub const TABLES: &[&str] = &records::NAMES;

/// Writes the page of `runs` to `out`. The error [`ReportError::Damaged`] comes after the page is written.
pub fn write(runs: &[PathBuf], out: &Path) -> Result<(), ReportError> {
    let (folders, labels) = open(runs)?;
    let html = page::page(&folders, &labels).into_string();
    files::write_atomic(out, html.as_bytes()).map_err(FileError::at(out))?;
    let damaged: Vec<String> = folders.into_iter().flat_map(|folder| folder.damaged).collect();
    match damaged.is_empty() {
        true => Ok(()),
        false => Err(ReportError::Damaged { page: out.to_owned(), damaged }),
    }
}

/// The tables of `runs` as text: all that have a row, or the one called `only`. CSV holds one table, by default the results.
pub fn tables(runs: &[PathBuf], format: Format, only: Option<&str>) -> Result<String, ReportError> {
    let (folders, labels) = open(runs)?;
    let damaged: Vec<String> = folders.iter().flat_map(|folder| folder.damaged.clone()).collect();
    if !damaged.is_empty() {
        return Err(ReportError::DamagedTables { damaged });
    }
    let only = only.or((format == Format::Csv).then_some(records::NAMES[0]));
    let mut tables = records::tables(&folders, &labels);
    if let Some(name) = only {
        let found: Vec<&str> = tables.iter().map(|table| table.name).collect();
        if !found.contains(&name) {
            let found = if found.is_empty() { "no table".to_owned() } else { found.join(", ") };
            return Err(ReportError::NoTable { name: name.to_owned(), found });
        }
        tables.retain(|table| table.name == name);
    }
    Ok(match format {
        Format::Markdown => tables.iter().map(Table::markdown).collect::<Vec<_>>().join("\n"),
        Format::Csv => tables.iter().map(Table::csv).collect(),
        Format::Json => {
            let all = tables.iter().map(|table| (table.name.to_owned(), table.json())).collect();
            format!("{:#}\n", serde_json::Value::Object(all))
        }
    })
}

/// The folders, and a name for each: that of its pipeline, or the path where two have the same.
fn open(runs: &[PathBuf]) -> Result<(Vec<Folder>, Vec<String>), ReportError> {
    let mut folders: Vec<Folder> = runs.iter().map(|path| Folder::open(path)).collect::<Result<_, _>>()?;
    let sets = folders.iter().map(Folder::pictured).sum::<usize>() + usize::from(folders.len() > 1);
    folders.iter_mut().for_each(|folder| folder.room = embedded::ROOM / sets.max(1));
    let name = |folder: &Folder| folder.record.name.clone();
    let is_shared = |one: &Folder| folders.iter().filter(|other| name(other) == name(one)).count() > 1;
    let label = |(folder, path): (&Folder, &PathBuf)| match is_shared(folder) {
        true => path.display().to_string(),
        false => name(folder),
    };
    let labels = folders.iter().zip(runs).map(label).collect();
    Ok((folders, labels))
}
