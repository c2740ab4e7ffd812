//! `laptop-diff runs`: the runs of the runs folder with their states and results.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use super::output::{note, print, print_json, table};
use crate::base::units;
use crate::config::Settings;
use crate::config::settings::Layer;
use crate::report::{self, Overview};

/// List the runs with their states, ages and most important results
#[derive(Args)]
#[command(after_help = "\
A percentage is what the last model of an evaluation keeps of the teacher's quality, measured from the floor where there is one.

Examples:
  laptop-diff runs
  laptop-diff runs --runs /scratch/runs --json")]
pub(super) struct Runs {
    /// Folder of the run folders
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Runs {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let settings = Settings::load(Layer { runs: self.runs, ..Layer::default() }, &mut |text| note(text))?;
        let all = report::overview(&settings.runs)?;
        if self.json {
            return print_json(&all);
        }
        if all.is_empty() {
            note(&format!("there is no run in {}", settings.runs.display()));
            return Ok(());
        }
        let head = ["run", "state", "started", "took", "results"].map(str::to_owned).to_vec();
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(all.iter().map(row)).collect();
        print(&table(&rows, &[2, 3]))
    }
}

fn row(run: &Overview) -> Vec<String> {
    let state = match &run.detail {
        Some(detail) => format!("{}: {detail}", run.state.replace('-', " ")),
        None => run.state.replace('-', " "),
    };
    vec![
        run.folder.display().to_string(),
        state,
        run.age().map_or_else(String::new, units::ago),
        run.seconds.map_or_else(String::new, units::seconds),
        results(run),
    ]
}

/// The most results that a line has, which is enough for a few metrics of one evaluation.
const RESULTS: usize = 4;

fn results(run: &Overview) -> String {
    let one = |one: &report::Headline| {
        let of = if one.evaluation.contains('@') { format!(" ({})", one.evaluation) } else { String::new() };
        format!("{} {:.0} %{of}", one.metric, one.percent)
    };
    let mut shown: Vec<String> = run.results.iter().take(RESULTS).map(one).collect();
    if run.results.len() > RESULTS {
        shown.push(format!("and {} more", run.results.len() - RESULTS));
    }
    shown.join(", ")
}
