//! `laptop-diff plan`: shows what would run, and why. Changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode as ProcessExitCode;
use std::sync::Arc;

use clap::Args;

use super::error::CliError;
use super::options::{PipelineArguments, SettingsArguments};
use super::output::{print, print_json, table};
use crate::base::{StageId, units};
use crate::config::{self, Settings};
use crate::plan::{Forecast, Outcome, Reason, ResolvedPipeline, explain};
use crate::run::{ExitCode, Hashing, Options};
use crate::ui::Style;

/// The exit code of `--exit-code` if a stage would run. A run never ends with it.
const WOULD_RUN: u8 = 8;

/// Show what a run would do with each stage, and why
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff plan pipelines/nano50.yaml
  laptop-diff plan pipelines/nano50.yaml --set selection.ratio=0.3
  laptop-diff plan pipelines/nano50.yaml --over selection.ratio=0.3,0.5,0.7
  laptop-diff plan pipelines/nano50.yaml --exit-code   # 8 if a stage would run, else 0")]
pub(super) struct PlanCommand {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// Exit with code 8 if a stage would run
    #[arg(long)]
    exit_code: bool,
    /// Print the forecast as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArguments,
}

impl PlanCommand {
    pub(super) fn execute(self) -> Result<ProcessExitCode, CliError> {
        let pipeline = self.pipeline.read()?;
        let settings = self.settings.load()?;
        let cached = show(&pipeline, &settings, None, self.json)?;
        Ok(if cached || !self.exit_code { ExitCode::Done.into() } else { WOULD_RUN.into() })
    }
}

/// Prints the forecast, of everything or of a stage and those it needs. Gives whether all of it is cached.
pub(super) fn show(
    pipeline: &ResolvedPipeline,
    settings: &Settings,
    until: Option<&StageId>,
    json: bool,
) -> Result<bool, CliError> {
    // Without a handler, a signal ends the program at once: there is nothing to finish.
    let hashing = Hashing::new(Style::Auto.open(), Arc::default());
    let store = SettingsArguments::store(settings)?.watched(Arc::new(hashing));
    let mut forecasts = explain(pipeline, settings.device.class(), &store)?;
    if let Some(until) = until {
        let wanted = wanted(pipeline, until)?;
        forecasts.retain(|forecast| wanted.contains(&forecast.id));
    }
    name_damage(&mut forecasts, &settings.runs.join(&pipeline.name));
    if json {
        print_json(&forecasts)?
    } else {
        print(&shown(&forecasts))?;
        print(&summary(pipeline, &forecasts))?
    }
    Ok(forecasts.iter().all(|forecast| forecast.outcome.is_cached()))
}

/// What `--until` leaves: a stage, or in a sweep its branches, and what they need.
fn wanted(pipeline: &ResolvedPipeline, until: &StageId) -> Result<BTreeSet<StageId>, CliError> {
    let options = Options { until: Some(until.clone()), ..Options::default() };
    let chosen = options.wanted(pipeline)?;
    Ok(chosen.into_iter().map(|index| pipeline.stages[index].id.clone()).collect())
}

/// Names damaged files by the run folder, if its link is to that artefact.
fn name_damage(forecasts: &mut [Forecast], run: &Path) {
    for Forecast { id, outcome, .. } in forecasts {
        let Outcome::Runs { reasons, .. } = outcome else { continue };
        let link = run.join(id.as_str());
        let Ok(target) = fs::read_link(&link) else { continue };
        for reason in reasons {
            if let Reason::Damaged { what } = reason {
                *what = what.replace(&target.display().to_string(), &link.display().to_string());
            }
        }
    }
}

/// `74 stages in 24 combinations of criterion and ratio: 50 cached, 24 to run`.
fn summary(pipeline: &ResolvedPipeline, forecasts: &[Forecast]) -> String {
    let cached = forecasts.iter().filter(|forecast| forecast.outcome.is_cached()).count();
    let combinations = config::combinations(&pipeline.axes);
    let axes: Vec<_> = pipeline.axes.iter().map(|axis| axis.name.as_str()).collect();
    let sweep = match axes.as_slice() {
        [] => String::new(),
        axes => format!(" in {combinations} combinations of {}", axes.join(" and ")),
    };
    format!("{} stages{sweep}: {cached} cached, {} to run\n", forecasts.len(), forecasts.len() - cached)
}

fn shown(forecasts: &[Forecast]) -> String {
    let mut rows = Vec::new();
    for forecast in forecasts {
        let (word, first, reasons) = match &forecast.outcome {
            Outcome::Cached { key, seconds } => {
                ("cached", format!("{}, saves {}", key.short(), units::seconds(*seconds)), &[][..])
            }
            Outcome::Runs { reasons, .. } => ("runs", String::new(), &reasons[..]),
            Outcome::Waits { inputs, reasons } => {
                let inputs: Vec<_> = inputs.iter().map(|id| format!("`{id}`")).collect();
                ("waits", format!("for {}", inputs.join(", ")), &reasons[..])
            }
        };
        let mut notes: Vec<String> = (!first.is_empty()).then_some(first).into_iter().collect();
        notes.extend(forecast.repositories.iter().map(|pinned| pinned.to_string()));
        notes.extend(forecast.missing.iter().cloned());
        notes.extend(reasons.iter().map(|reason| reason.to_string()));
        notes.extend(forecast.reuse.clone());
        let mut row = vec![forecast.id.to_string(), forecast.stage.clone(), word.to_owned()];
        let mut notes = notes.into_iter();
        row.extend(notes.next());
        rows.push(row);
        rows.extend(notes.map(|note| vec![String::new(), String::new(), String::new(), note]));
    }
    table(&rows, &[])
}
