//! `laptop-diff verify`: executes a run again without the cache and compares.

use std::path::{Path, PathBuf};
use std::process::ExitCode as ProcessExitCode;
use std::sync::Arc;

use clap::Args;

use super::error::CliError;
use super::options::ComputeArguments;
use super::output::{print, print_json, table};
use super::run_folder::GivenRun;
use crate::base::names::UnknownName;
use crate::base::{Interrupt, StageId};
use crate::cache::{Lookup, Place, Scratch, Store};
use crate::config::settings::Layer;
use crate::config::{PipelineFile, Settings};
use crate::plan::{Reason, ResolvedPipeline, explain, shown_value};
use crate::run::verification::{Outcome, Verified, compare};
use crate::run::{ExitCode, Hashing, Job, Options, RunError, RunRecord, Share, execute, signals};
use crate::train::collective::Alone;
use crate::ui::Style;

/// The exit code if a stage has other bytes.
const DIFFERS: u8 = 8;

/// Execute a run again without its cache, and compare every stage with what was recorded
#[derive(Args)]
#[command(after_help = "\
The pipeline runs as recorded, in a scratch folder that is removed afterwards. Each stage is compared by its digest; where
it differs, file by file and number by number, with what explains it: another device, program or input. The exit code is 8
if a stage differs.

Examples:
  laptop-diff verify nano50
  laptop-diff verify nano50 --stage scores     # only this one, with its inputs from the cache
  laptop-diff verify runs/sd15-50 --device cpu --scratch /scratch --json")]
pub(super) struct Verify {
    /// The run, by name or folder
    run: PathBuf,
    /// Only this stage; its inputs are taken from the cache
    #[arg(long, value_name = "ID")]
    stage: Option<String>,
    /// Folder for the scratch folder, which needs as much space as the run's artefacts [default: the cache folder]
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
    /// Folder of the artefact cache
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Folder of run folders
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Verify {
    pub(super) fn execute(self) -> Result<ProcessExitCode, CliError> {
        let layer = Layer { cache: self.cache.clone(), runs: self.runs.clone(), ..Layer::default() };
        let settings = self.compute.load(layer)?;
        let run = GivenRun::find(&self.run, &settings.runs)?;
        let record = &run.record;
        let artefacts = record.stages.iter().filter_map(|stage| stage.artefact.as_ref());
        let place = artefacts.filter_map(|artefact| Place::of(&artefact.path)).next();
        let store = Store::open(&place.map_or(settings.cache.clone(), |place| place.root))?;
        let pipeline = ResolvedPipeline::new(PipelineFile::parse(&record.file, &record.pipeline, &[])?)?;
        let interrupt = signals::listen();
        let scratch = Scratch::new(self.scratch.as_deref().unwrap_or(store.root()))?;
        let sink = Style::Auto.open();
        let hashing = Hashing::new(Arc::clone(&sink), Arc::clone(&interrupt));
        let fresh = Store::open(&scratch.path().join("cache"))?.watched(Arc::new(hashing));
        if let Some(id) = &self.stage {
            lend(&store, &fresh, &run, id)?;
            check_lent(&pipeline, &settings, &fresh, id)?;
        }
        let again = self.again(&pipeline, &settings, &fresh, scratch.path(), (&*sink, &interrupt))?;
        let wanted = |id: &StageId| self.stage.as_ref().is_none_or(|only| only == id.as_str());
        let compared = compare(record, &again, wanted);
        if self.json {
            print_json(&compared)?
        } else {
            print(&shown(&compared, record, &again))?
        }
        let failed = compared.iter().any(|stage| stage.outcome == Outcome::Failed);
        let equal = compared.iter().all(|stage| stage.outcome == Outcome::Equal);
        Ok(match (failed, equal) {
            (true, _) => ExitCode::Stage.into(),
            (_, true) => ExitCode::Done.into(),
            _ => DIFFERS.into(),
        })
    }

    /// Executes the pipeline in an empty cache. A stage that fails is part of the result.
    fn again(
        &self,
        pipeline: &ResolvedPipeline,
        settings: &Settings,
        store: &Store,
        scratch: &Path,
        (sink, interrupt): (&dyn crate::run::Sink, &Interrupt),
    ) -> Result<RunRecord, CliError> {
        let until = self.stage.clone().map(StageId::from);
        let options = Options { until, keep_going: true, ..Options::default() };
        // Nobody resumes it, and nobody else watches it.
        let mut training = settings.training();
        (training.keep_state, training.tensorboard) = (false, false);
        let job = Job {
            pipeline,
            store,
            runs: &scratch.join("runs"),
            device: settings.device,
            places: &[],
            options: &options,
            share: &Share::Whole,
            training: &training,
            sink,
            interrupt,
            ranks: &Alone,
        };
        match execute(&job) {
            Ok(record) => Ok(record),
            Err(error @ (RunError::Interrupted(_) | RunError::Plan(_) | RunError::UnknownStage { .. })) => {
                Err(error.into())
            }
            Err(error) => {
                // The record says how far it came; without one there is nothing to compare.
                RunRecord::read(&scratch.join("runs").join(&pipeline.name)).map_err(|_| error.into())
            }
        }
    }
}

/// Lends the inputs of a stage, and theirs, to the scratch cache.
fn lend(store: &Store, fresh: &Store, run: &GivenRun, id: &str) -> Result<(), CliError> {
    let record = &run.record;
    let index = record.stages.iter().position(|stage| stage.id.as_str() == id).ok_or_else(|| {
        let known = record.stages.iter().map(|stage| stage.id.to_string()).collect();
        UnknownName { what: "stage", found: id.to_owned(), known }
    })?;
    for before in record.graph.with_ancestors(index).into_iter().filter(|before| *before != index) {
        let stage = &record.stages[before];
        let Some(key) = stage.key else { continue };
        store.hold(&key);
        if let Lookup::Whole(entry) = store.lookup(&key)? {
            fresh.borrow(store, &entry)?;
        }
    }
    Ok(())
}

/// Fails unless nothing but the stage itself would run.
fn check_lent(
    pipeline: &ResolvedPipeline,
    settings: &Settings,
    fresh: &Store,
    id: &str,
) -> Result<(), CliError> {
    let forecasts = explain(pipeline, settings.device.class(), fresh)?;
    let index = pipeline.stages.iter().position(|stage| stage.id.as_str() == id);
    let needed = index.map(|index| pipeline.graph.with_ancestors(index)).unwrap_or_default();
    let ids = needed.into_iter().map(|index| &pipeline.stages[index].id).filter(|stage| stage.as_str() != id);
    let ids: Vec<_> = ids.collect();
    match forecasts.iter().find(|one| ids.contains(&&one.id) && !one.outcome.is_cached()) {
        None => Ok(()),
        Some(missing) => Err(CliError::InputNotCached { stage: id.into(), input: missing.id.clone() }),
    }
}

fn shown(compared: &[Verified], old: &RunRecord, new: &RunRecord) -> String {
    let mut rows = Vec::new();
    for stage in compared {
        let word = match stage.outcome {
            Outcome::Equal => "equal",
            Outcome::Differs => "differs",
            Outcome::Follows => "follows",
            Outcome::Failed => "failed",
        };
        let mut notes = Vec::new();
        if !stage.after.is_empty() {
            let after: Vec<_> = stage.after.iter().map(|id| format!("`{id}`")).collect();
            notes.push(format!("its inputs differ: {}", after.join(", ")));
        }
        notes.extend(stage.changes.iter().map(Reason::to_string));
        notes.extend(stage.files.iter().map(ToString::to_string));
        notes.extend(stage.error.clone());
        let mut notes = notes.into_iter();
        rows.push(vec![stage.id.to_string(), word.to_owned(), notes.next().unwrap_or_default()]);
        rows.extend(notes.map(|note| vec![String::new(), String::new(), note]));
    }
    format!("{}{}\n", table(&rows, &[]), verdict(compared, old, new))
}

/// The last line: how many are equal, and what explains the others.
fn verdict(compared: &[Verified], old: &RunRecord, new: &RunRecord) -> String {
    let equal = compared.iter().filter(|stage| stage.outcome == Outcome::Equal).count();
    let count = format!("{equal} of {} stages have the same bytes", compared.len());
    let first = compared.iter().find(|stage| matches!(stage.outcome, Outcome::Differs | Outcome::Failed));
    let Some(first) = first else { return count };
    let of_device =
        |reason: &Reason| matches!(reason, Reason::Changed(change) if change.name == "device class");
    let why = match &first.changes[..] {
        _ if first.outcome == Outcome::Failed => format!("`{}` could not be compared", first.id),
        [] => format!(
            "`{}` is the first that differs, although nothing that it depends on does: please report it",
            first.id
        ),
        [only] if of_device(only) => {
            let (there, here) = (old.device.class, new.device.class);
            format!(
                "`{}` is the first that differs: it ran on {there}, now on {here}, which rounds differently",
                first.id
            )
        }
        changes => {
            let names: Vec<_> = changes.iter().map(name).collect();
            format!("`{}` is the first that differs, because of {}", first.id, names.join(", "))
        }
    };
    format!("{count}; {why}")
}

fn name(reason: &Reason) -> String {
    match reason {
        Reason::Changed(change) => match &change.new {
            Some(new) => format!("{} {}", change.name, shown_value(new)),
            None => change.name.clone(),
        },
        other => other.to_string(),
    }
}
