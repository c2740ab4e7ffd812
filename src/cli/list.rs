//! `laptop-diff list`: everything that a pipeline file can name, from the tables that define it.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::error::CliError;
use super::output::{print, print_json, table};
use crate::metric::METRICS;
use crate::prune::FORMATS;
use crate::sample::SAMPLERS;
use crate::score::CRITERIA;
use crate::select::{FITS, LAYOUTS, OBJECTIVES, SOLVERS};
use crate::stage::STAGES;

/// List what a pipeline file can name: stages, criteria, objectives, solvers, fits, layouts, exports, metrics, samplers
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff list
  laptop-diff list criteria
  laptop-diff list metrics --json")]
pub(super) struct List {
    /// Show only this table
    #[arg(value_enum)]
    what: Option<Table>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Table {
    Stages,
    Criteria,
    Objectives,
    Solvers,
    Fits,
    Layouts,
    Exports,
    Metrics,
    Samplers,
}

#[derive(Serialize)]
struct Entry {
    table: Table,
    name: &'static str,
    summary: &'static str,
}

impl List {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let mut entries = entries();
        entries.retain(|entry| self.what.is_none_or(|what| what == entry.table));
        if self.json { print_json(&entries) } else { print(&shown(&entries)) }
    }
}

fn entries() -> Vec<Entry> {
    let entry = |table| move |(name, summary)| Entry { table, name, summary };
    let stages = STAGES.iter().map(|stage| (stage.name, stage.summary)).map(entry(Table::Stages));
    let criteria = CRITERIA.iter().map(|one| (one.name, one.summary)).map(entry(Table::Criteria));
    let objectives = OBJECTIVES.iter().map(|one| (one.name, one.summary)).map(entry(Table::Objectives));
    let solvers = SOLVERS.iter().map(|one| (one.name(), one.summary())).map(entry(Table::Solvers));
    let fits = FITS.iter().map(|one| (one.name, one.summary)).map(entry(Table::Fits));
    let layouts = LAYOUTS.iter().map(|one| (one.name, one.summary)).map(entry(Table::Layouts));
    let formats = FORMATS.iter().map(|one| (one.name, one.summary)).map(entry(Table::Exports));
    let metrics = METRICS.iter().map(|one| (one.name(), one.summary())).map(entry(Table::Metrics));
    let samplers = SAMPLERS.iter().map(|one| (one.name(), one.summary())).map(entry(Table::Samplers));
    let choices = objectives.chain(solvers).chain(fits).chain(layouts).chain(formats);
    stages.chain(criteria).chain(choices).chain(metrics).chain(samplers).collect()
}

fn shown(entries: &[Entry]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut last = None;
    for entry in entries {
        if last.replace(entry.table) != Some(entry.table) {
            let name =
                entry.table.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned());
            if !rows.is_empty() {
                rows.push(Vec::new());
            }
            rows.push(vec![format!("{name}:")]);
        }
        rows.push(vec![format!("  {}", entry.name), entry.summary.to_owned()]);
    }
    table(&rows, &[])
}
