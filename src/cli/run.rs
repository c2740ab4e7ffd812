//! `laptop-diff run`: runs what is missing, resumes what was interrupted, and writes the report.

use std::sync::Arc;

use clap::Args;

use super::error::CliError;
use super::options::{PipelineArguments, SettingsArguments};
use crate::base::StageId;
use crate::plan::ResolvedPipeline;
use crate::report;
use crate::run::{self, Hashing, Job, Options, RunRecord, execute};
use crate::ui::Style;

/// Run a pipeline: runs what is missing, resumes what was interrupted, reuses the rest
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff run pipelines/nano50.yaml
  laptop-diff run pipelines/nano50.yaml --set selection.ratio=0.3 --set name=nano30
  laptop-diff run pipelines/nano50.yaml --until selection --json

The run folder runs/NAME/ then holds report.html, run.json, events.jsonl and a link to each stage's artefact.")]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) pipeline: PipelineArguments,
    /// Run only this stage and those it needs; in a sweep, ID means all its branches, ID@AXIS=VALUE one
    #[arg(long, value_name = "ID")]
    until: Option<String>,
    /// Run this stage from scratch, even if its artefact is cached; may be repeated
    #[arg(long, value_name = "ID")]
    force: Vec<String>,
    /// After a failure, run the stages that do not need the failed one
    #[arg(long)]
    keep_going: bool,
    /// Print events on stdout, one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArguments,
}

impl Run {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let pipeline = self.pipeline.read()?;
        self.run(&pipeline)
    }

    pub(super) fn run(self, pipeline: &ResolvedPipeline) -> Result<(), CliError> {
        let settings = self.settings.load()?;
        let interrupt = run::signals::listen();
        let sink = if self.json { Style::Json } else { Style::Auto }.open();
        let hashing = Hashing::new(Arc::clone(&sink), Arc::clone(&interrupt));
        let store = SettingsArguments::store(&settings)?.watched(Arc::new(hashing));
        let options = Options {
            until: self.until.map(StageId::from),
            force: self.force.into_iter().map(StageId::from).collect(),
            keep_going: self.keep_going,
        };
        let training = settings.training();
        let job = Job {
            training: &training,
            pipeline,
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
        let written = if report::is_due(&ended, before.as_ref(), &page) {
            report::write(&[folder], &page)
        } else {
            Ok(())
        };
        // The run's own error comes first.
        ended?;
        Ok(written?)
    }
}
