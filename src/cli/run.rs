//! `laptop-diff run`, and `laptop-diff sweep`, which runs several values of a parameter: what is missing is run, what was
//! cut off goes on, and the report is written.

use std::path::Path;

use clap::Args;

use super::error::CliError;
use super::options::{PipelineArguments, SettingsArguments};
use crate::base::StageId;
use crate::cache::Store;
use crate::config::Pipeline;
use crate::plan::Graph;
use crate::report;
use crate::run::{self, Job, Options, RunError, RunRecord, State, execute};
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
    /// Run only this stage and what it needs; in a sweep ID or one branch, ID@AXIS=VALUE
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

/// Run a pipeline for several values of its parameters: stages that no value reaches run once
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff sweep pipelines/nano50.yaml --over selection.ratio=0.3,0.5,0.7
  laptop-diff sweep pipelines/nano50.yaml --over selection.criterion=output-loss,magnitude --over selection.ratio=0.3,0.5
  laptop-diff sweep pipelines/nano-criteria.yaml --keep-going   # the values of the file's `sweep:`

It is `laptop-diff run` of a file with a `sweep:` block. A stage that the values reach runs once for each combination of
them, as `selection@ratio=0.3`; what is there already, by whatever way, is kept. The report shows all of them together.")]
pub(super) struct Sweep {
    #[command(flatten)]
    run: Run,
}

impl Sweep {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let (pipeline, graph) = self.run.pipeline.read()?;
        if pipeline.axes.is_empty() {
            return Err(CliError::NothingToSweep { path: pipeline.path });
        }
        self.run.run(&pipeline, &graph)
    }
}

impl Run {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let (pipeline, graph) = self.pipeline.read()?;
        self.run(&pipeline, &graph)
    }

    fn run(self, pipeline: &Pipeline, graph: &Graph) -> Result<(), CliError> {
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
            pipeline,
            graph,
            store: &store,
            runs: &settings.runs,
            device: settings.device,
            options: &options,
            sink: &*sink,
            interrupt: &interrupt,
        };
        let folder = settings.runs.join(&pipeline.name);
        let before = RunRecord::read(&folder).ok();
        let ended = execute(&job);
        let page = folder.join(report::FILE);
        match &ended {
            // What came about beside the failure is worth a page, and the page says what is missing.
            Err(RunError::Stage { .. } | RunError::Bug { .. } | RunError::Several { .. })
                if self.keep_going =>
            {
                report::write(&[folder], &page)?;
            }
            Ok(record) if is_stale(record, before.as_ref(), &page) => report::write(&[folder], &page)?,
            _ => {}
        }
        Ok(ended.map(drop)?)
    }
}

/// Whether the page does not show what this run has. A run that found everything cached as it was leaves it alone.
fn is_stale(record: &RunRecord, before: Option<&RunRecord>, page: &Path) -> bool {
    let shown = |record: &RunRecord| -> Vec<_> {
        record.stages.iter().map(|stage| (stage.id.clone(), stage.key)).collect()
    };
    record.count(State::Done) > 0
        || !page.is_file()
        || before.is_none_or(|before| shown(before) != shown(record))
}
