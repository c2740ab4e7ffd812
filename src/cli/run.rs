//! `laptop-diff run`: runs what is missing, resumes what was cut off, and writes the report.

use clap::Args;

use super::error::CliError;
use super::options::{PipelineArguments, SettingsArguments};
use crate::base::StageId;
use crate::cache::Store;
use crate::report;
use crate::run::{self, Job, Options, RunRecord, State, execute};
use crate::ui::Style;

/// Run a pipeline: what is missing is made, what was cut off goes on, what is there is kept
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff run pipelines/nano50.yaml
  laptop-diff run pipelines/nano50.yaml --set selection.ratio=0.3 --set name=nano30
  laptop-diff run pipelines/nano50.yaml --until selection --json

The run folder runs/NAME/ then holds report.html, run.json, events.jsonl and a link to each stage's artefact.")]
pub(super) struct Run {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// Run only this stage and what it needs
    #[arg(long, value_name = "ID")]
    until: Option<String>,
    /// Run this stage from nothing, even if its artefact is there; may be repeated
    #[arg(long, value_name = "ID")]
    force: Vec<String>,
    /// After a failure, run what does not need the failed stage
    #[arg(long)]
    keep_going: bool,
    /// Print one event a line on stdout, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArguments,
}

impl Run {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let (pipeline, graph) = self.pipeline.read()?;
        let settings = self.settings.load()?;
        let store = Store::open(&settings.cache)?;
        let interrupt = run::signals::listen();
        let sink = if self.json { Style::Json } else { Style::Auto }.open();
        let options = Options {
            until: self.until.map(StageId::from),
            force: self.force.into_iter().map(StageId::from).collect(),
            keep_going: self.keep_going,
        };
        let job = Job {
            pipeline: &pipeline,
            graph: &graph,
            store: &store,
            runs: &settings.runs,
            device: settings.device,
            options: &options,
            sink: &*sink,
            interrupt: &interrupt,
        };
        let record = execute(&job)?;
        let folder = settings.runs.join(&pipeline.name);
        let page = folder.join(report::FILE);
        if is_stale(&record, &page) {
            report::write(&[folder], &page)?;
        }
        Ok(())
    }
}

/// Whether something ran that the page does not show. A run that found everything cached leaves it alone.
fn is_stale(record: &RunRecord, page: &std::path::Path) -> bool {
    record.count(State::Done) > 0 || !page.is_file()
}
