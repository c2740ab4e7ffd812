//! `laptop-diff status`: the stages of a run and the jobs that make them.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::output::{note, print, print_json, table};
use super::run_folder::GivenRun;
use crate::base::StageId;
use crate::config::Settings;
use crate::config::settings::Layer;
use crate::report;
use crate::run::{StageState, progress_in};
use crate::slurm::{self, JobId, JobStatus, event_log};

/// Show the stages of a run with their states, and the Slurm jobs that make them
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff status nano-sweep
  laptop-diff status runs/nano-sweep --json
  watch -n 10 laptop-diff status nano-sweep")]
pub(super) struct StatusCommand {
    /// The run, by name or folder
    run: PathBuf,
    /// Folder of the run folders
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    run: String,
    folder: PathBuf,
    /// `queued`, `running`, or how it ended.
    state: &'static str,
    stages: Vec<StageStatus>,
    jobs: Vec<JobStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct StageStatus {
    id: StageId,
    state: StageState,
    /// Its job.
    job: Option<JobId>,
    /// Pieces done, pieces in all, and what a piece is.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<(u64, u64, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl StatusCommand {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let settings = Settings::load(Layer { runs: self.runs, ..Layer::default() }, &mut |text| note(text))?;
        let run = GivenRun::find(&self.run, &settings.runs)?;
        let jobs = slurm::jobs(&run.folder)?;
        let is_running = |job: &JobStatus| job.live && job.state.as_deref() != Some("PENDING");
        let state = match run.record.exit_code {
            None if jobs.iter().any(is_running) => "running",
            None if jobs.iter().any(|job| job.live) => "queued",
            _ => report::state_of(&run.record)?,
        };
        let stages = run.record.stages.iter().map(|stage| {
            let job = jobs.iter().find(|job| job.stages.contains(&stage.id));
            let is_begun = matches!(stage.state, StageState::Running | StageState::Interrupted);
            let progress = job.filter(|_| is_begun);
            StageStatus {
                id: stage.id.clone(),
                state: stage.state,
                job: job.map(|job| job.id),
                progress: progress.and_then(|job| progress_in(&event_log(&run.folder, &job.name), &stage.id)),
                error: stage.error.clone(),
            }
        });
        let (stages, run_name, folder) = (stages.collect(), run.record.name.clone(), run.folder);
        let status = Status { run: run_name, folder, state, stages, jobs };
        if self.json { print_json(&status) } else { print(&status.shown()) }
    }
}

impl Status {
    fn shown(&self) -> String {
        let head = ["stage", "state", "job", "of the job"].map(str::to_owned).to_vec();
        let rows = self.stages.iter().map(|stage| {
            let job = self.jobs.iter().find(|job| Some(job.id) == stage.job);
            let number = job.map_or(String::new(), |job| job.id.to_string());
            let mut notes: Vec<String> = Vec::new();
            if !stage.state.has_artefact() {
                notes.extend(job.map(in_words));
            }
            if let Some((done, total, unit)) = &stage.progress {
                notes.push(format!("{done} of {total} {unit}"));
            }
            notes.extend(stage.error.clone());
            vec![stage.id.to_string(), stage.state.to_string(), number, notes.join("; ")]
        });
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
        let made = self.stages.iter().filter(|stage| stage.state.has_artefact()).count();
        let mut text =
            format!("{}{}: {made} of {} stages are made", table(&rows, &[2]), self.state, self.stages.len());
        let live = self.jobs.iter().filter(|job| job.live).count();
        if live > 0 {
            text.push_str(&format!("; {live} jobs are in the queue"));
        }
        if !self.jobs.is_empty() {
            text.push_str(&format!("; logs: {}", self.folder.join(slurm::FOLDER).display()));
        }
        text + "\n"
    }
}

/// `RUNNING on n0 for 3:20`, `PENDING (Priority)`.
fn in_words(job: &JobStatus) -> String {
    let mut text = job.state.clone().unwrap_or_else(|| "not known to Slurm any more".to_owned());
    if job.live {
        text.extend(job.nodes.as_ref().map(|nodes| format!(" on {nodes}")));
        text.extend(job.elapsed.as_ref().filter(|_| job.nodes.is_some()).map(|time| format!(" for {time}")));
        text.extend(job.reason.as_ref().map(|reason| format!(" ({reason})")));
    }
    text
}
