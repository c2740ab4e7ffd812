//! All runs of a folder in a line each: state, age, and how much of the teacher the last model keeps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::ReportError;
use crate::base::{FileError, clock};
use crate::metric::{METRICS, Metrics, Prominence};
use crate::run::{ExitCode, RunRecord, StageRecord, Stopped, Unfinished};
use crate::slurm;

/// A run in short.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Overview {
    /// Its folder.
    pub folder: PathBuf,
    /// `done`, `running`, `interrupted`, `failed`, `gates-not-met`, `killed`, `submitted`, or `unreadable`.
    pub state: &'static str,
    /// The stage that a run stopped at and why, or why its record cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When it was started, as `2026-08-01T12:00:00Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// The seconds that it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The most important results of the last model of each evaluation.
    pub results: Vec<Headline>,
}

/// How much of the teacher a model keeps by one metric.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Headline {
    /// The evaluating stage.
    pub evaluation: String,
    /// The model.
    pub model: String,
    /// The metric.
    pub metric: String,
    /// The percentage.
    pub percent: f64,
    /// Whether it was measured from the floor.
    pub above_the_floor: bool,
}

/// The runs in a folder, the newest first.
pub fn overview(runs: &Path) -> Result<Vec<Overview>, ReportError> {
    let entries = match fs::read_dir(runs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(FileError::at(runs))?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let folder = entry.map_err(FileError::at(runs))?.path();
        if folder.join("run.json").exists() {
            all.push(of(folder)?);
        }
    }
    all.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.folder.cmp(&b.folder)));
    Ok(all)
}

impl Overview {
    /// The seconds since it was started.
    pub fn age(&self) -> Option<f64> {
        let now = clock::seconds_of(&clock::now())?;
        Some((now - clock::seconds_of(self.started.as_deref()?)?).max(0) as f64)
    }
}

fn of(folder: PathBuf) -> Result<Overview, ReportError> {
    let record = match RunRecord::read(&folder) {
        Ok(record) => record,
        Err(error) => {
            let detail = Some(error.to_string());
            return Ok(Overview {
                folder,
                state: "unreadable",
                detail,
                started: None,
                seconds: None,
                results: Vec::new(),
            });
        }
    };
    let mut state = state_of(&record)?;
    if state == "killed" && slurm::has_jobs(&folder) {
        state = "submitted";
    }
    let stopped =
        record.stages.iter().find(|stage| !stage.state.has_artefact()).map(|stage| stage.id.as_str());
    let stopped = stopped.filter(|_| state != "done").and_then(|id| Stopped::of(&record, &folder, id));
    Ok(Overview {
        state,
        detail: stopped.map(|stopped| match state {
            "running" => progress(&stopped),
            _ => stopped.to_string(),
        }),
        started: Some(record.started.clone()),
        seconds: record.seconds,
        results: record.stages.iter().flat_map(headlines).collect(),
        folder,
    })
}

fn progress(stopped: &Stopped) -> String {
    match &stopped.done {
        Some((done, total, unit)) => format!("stage `{}`, {done} of {total} {unit}", stopped.stage),
        None => format!("stage `{}`", stopped.stage),
    }
}

/// The state of a run, by its record and by what is at work on it.
pub fn state_of(record: &RunRecord) -> Result<&'static str, ReportError> {
    let is = |code: ExitCode| record.exit_code == Some(code.number());
    Ok(match record.exit_code {
        Some(_) if is(ExitCode::Done) => "done",
        Some(_) if is(ExitCode::Gate) => "gates-not-met",
        Some(_) if is(ExitCode::Interrupted) => "interrupted",
        Some(_) => "failed",
        None => {
            let mut running = false;
            for stage in &record.stages {
                running |= Unfinished::of(record, stage)?.is_some_and(|work| work.running);
            }
            if running { "running" } else { "killed" }
        }
    })
}

/// The results of a stage; none if it is no evaluation or its files cannot be read.
fn headlines(stage: &StageRecord) -> Vec<Headline> {
    let metrics = stage
        .artefact
        .as_ref()
        .filter(|_| stage.stage == "evaluate")
        .and_then(|artefact| Metrics::open(&artefact.path).ok());
    let Some(metrics) = metrics else { return Vec::new() };
    let Some(student) = metrics.models.iter().rfind(|model| model.model != metrics.teacher) else {
        return Vec::new();
    };
    let prominent = METRICS.iter().filter(|metric| metric.prominence() == Prominence::Card);
    let one = |name: &str| {
        let found = student.metrics.get(name)?;
        let retained = found.retained.map(|retained| retained.value);
        Some(Headline {
            evaluation: stage.id.to_string(),
            model: student.model.clone(),
            metric: name.to_owned(),
            percent: retained.or(found.of_teacher)?,
            above_the_floor: retained.is_some(),
        })
    };
    prominent.filter_map(|metric| one(metric.name())).collect()
}
