//! `laptop-diff job`: what the jobs of `--executor slurm` run. It reads the run folder, not the pipeline file, which may have
//! changed since the run was submitted.

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::process::ExitCode as ProcessExitCode;
use std::sync::Arc;

use clap::Args;

use super::ending::{conclude, end, track};
use super::error::CliError;
use super::options::{self, SettingsArguments};
use super::output::note;
use super::ranks::Start;
use crate::base::names::UnknownName;
use crate::base::{FileError, Interrupt, StageId};
use crate::config::settings::Layer;
use crate::config::{PipelineFile, Settings};
use crate::plan::ResolvedPipeline;
use crate::run::{self, ExitCode, Hashing, Job, Options, Part, RunRecord, Share, execute};
use crate::slurm::{self, Submission, event_log};
use crate::train::collective::{Alone, Collective};
use crate::ui::Style;

/// Make some stages of a submitted run, or finish it
#[derive(Args)]
pub(super) struct JobCommand {
    /// The run folder
    folder: PathBuf,
    /// A stage to make; without any, the run is finished
    #[arg(long, value_name = "ID")]
    stage: Vec<String>,
    /// A stage to make from scratch
    #[arg(long, value_name = "ID")]
    force: Vec<String>,
    /// The name of the job's files
    #[arg(long, value_name = "NAME", default_value = "job")]
    name: String,
    #[command(flatten)]
    settings: SettingsArguments,
}

impl JobCommand {
    pub(super) fn execute(self) -> Result<ProcessExitCode, CliError> {
        let settings = self.settings.read(Layer::default(), &mut |text| note(text))?;
        let Some(start) = Start::find(None)? else {
            options::start(&settings, 1)?;
            self.run(&settings, &run::signals::listen(), &Alone)?;
            return Ok(ExitCode::Done.into());
        };
        start.lead_or_follow(settings, |settings, interrupt, ranks| self.run(settings, interrupt, ranks))
    }

    fn run(
        &self,
        settings: &Settings,
        interrupt: &Arc<Interrupt>,
        ranks: &dyn Collective,
    ) -> Result<(), CliError> {
        let folder = std::fs::canonicalize(&self.folder).map_err(FileError::at(&self.folder))?;
        let record = RunRecord::read(&folder).map_err(FileError::at(&folder.join("run.json")))?;
        let pipeline = ResolvedPipeline::new(PipelineFile::parse(&record.file, &record.pipeline, &[])?)?;
        let submission = Submission::read(&folder)?;
        let (share, force) = match self.stage.is_empty() {
            true => (Share::Last(Box::new(slurm::last(&folder)?)), BTreeSet::new()),
            false => (Share::Part(self.part(&pipeline, &folder)?), self.forced()),
        };
        let until = submission.and_then(|submission| submission.until);
        let options = Options { until, force, keep_going: true };
        let sink = Style::Auto.open();
        let hashing = Hashing::new(Arc::clone(&sink), Arc::clone(interrupt));
        let store = SettingsArguments::store(settings)?.watched(Arc::new(hashing));
        let job = Job {
            training: &settings.training(),
            pipeline: &pipeline,
            store: &store,
            runs: folder.parent().unwrap_or(&folder),
            device: settings.device,
            places: &[],
            share: &share,
            options: &options,
            sink: &*sink,
            interrupt,
            ranks,
        };
        let tracker = track(settings, &folder, &share, &sink);
        let ended = execute(&job);
        if let Share::Last(_) = share {
            return conclude(settings, &folder, None, tracker, ended);
        }
        end(tracker);
        Ok(ended.map(drop)?)
    }

    fn part(&self, pipeline: &ResolvedPipeline, folder: &std::path::Path) -> Result<Part, CliError> {
        let index = |id: &String| {
            let index = pipeline.stages.iter().position(|stage| stage.id.as_str() == id);
            index.ok_or_else(|| {
                let known = pipeline.stages.iter().map(|stage| stage.id.to_string()).collect();
                UnknownName { what: "stage", found: id.clone(), known }
            })
        };
        let own = self.stage.iter().map(index).collect::<Result<_, _>>()?;
        Ok(Part { own, log: event_log(folder, &self.name) })
    }

    /// A job that was queued again goes on with what it made from scratch.
    fn forced(&self) -> BTreeSet<StageId> {
        let again = env::var("SLURM_RESTART_COUNT").is_ok_and(|count| count.trim() != "0");
        self.force.iter().filter(|_| !again).cloned().map(StageId::from).collect()
    }
}
