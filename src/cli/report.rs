//! `laptop-diff report`: the HTML page of one run, or of several, or their tables for other programs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::output::{print, print_link};
use super::target;
use crate::base::{FileError, files};
use crate::report;

/// Write a self-contained HTML page about one run, or several side by side, or print their tables
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff report runs/nano50   # also while it runs: the curves up to now
  laptop-diff report runs/nano30 runs/nano50 runs/nano70 --out comparison.html
  laptop-diff report runs/nano30 runs/nano50 --format md
  laptop-diff report runs/nano50 --format csv --table results --out results.csv

Tables: results, gates, selections, baselines, exports, and settings, which are those that differ between runs. CSV has \
the numbers in full, an estimate in three columns: its value and the two ends of its interval.")]
pub(super) struct Report {
    /// Run folders
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The file to write [default: report.html in the first run's folder; tables are printed]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A page, or its tables as text
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Html)]
    format: Format,
    /// Only this table, by its name [default: all; for csv: results]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(report::TABLES), hide_possible_values = true)]
    table: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Html,
    Md,
    Json,
    Csv,
}

impl Report {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let format = match self.format {
            Format::Html if self.table.is_some() => return Err(CliError::TableOfPage),
            Format::Html => return self.page(),
            Format::Md => report::Format::Markdown,
            Format::Json => report::Format::Json,
            Format::Csv => report::Format::Csv,
        };
        let Some(out) = &self.out else {
            return print(&report::tables(&self.runs, format, self.table.as_deref())?);
        };
        target::file(out)?;
        let text = report::tables(&self.runs, format, self.table.as_deref())?;
        files::write_atomic(out, text.as_bytes()).map_err(FileError::at(out))?;
        print(&format!("{}\n", out.display()))
    }

    fn page(self) -> Result<(), CliError> {
        let out = self.out.unwrap_or_else(|| self.runs[0].join(report::FILE));
        target::file(&out)?;
        report::write(&self.runs, &out)?;
        print_link(&out)
    }
}
