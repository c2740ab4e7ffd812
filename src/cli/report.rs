//! `laptop-diff report`: the HTML page of one run, or of several.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use super::output::print;
use super::target;
use crate::report;

/// Write a self-contained HTML page about one run, or several side by side
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff report runs/nano50   # also while it runs: the curves up to now
  laptop-diff report runs/nano30 runs/nano50 runs/nano70 --out comparison.html")]
pub(super) struct Report {
    /// Run folders
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The file to write [default: report.html in the first run's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Report {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let out = self.out.unwrap_or_else(|| self.runs[0].join(report::FILE));
        target::file(&out)?;
        report::write(&self.runs, &out)?;
        print(&format!("{}\n", out.display()))
    }
}
