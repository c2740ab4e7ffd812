//! `--executor slurm` of `run` and `sweep`: gives the run to the cluster and ends.

use std::env;
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;

use super::ending::{conclude, track};
use super::error::CliError;
use super::options::SettingsArguments;
use super::output::note;
use crate::base::FileError;
use crate::cache::Recheck;
use crate::config::Settings;
use crate::config::settings::Threads;
use crate::plan::ResolvedPipeline;
use crate::run::{Event, Hashing, Job, Options, RunRecord, Share, Sink, execute, signals};
use crate::slurm::{self, Machine, Order, Submitted, submit};
use crate::train::collective::Alone;
use crate::ui::Style;

/// Who runs the stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Executor {
    /// This machine.
    #[default]
    Local,
    /// Jobs of a Slurm cluster.
    Slurm,
}

/// The survey before a submission tells nothing: what is cached is counted.
struct Silent;

impl Sink for Silent {
    fn event(&self, _: &Event) {}
}

/// Submits what the cache lacks. If that is nothing, and no job is in the queue, it finishes the run.
pub(super) fn to_slurm(
    pipeline: &ResolvedPipeline,
    settings: &Settings,
    options: &Options,
    ranks: Option<usize>,
) -> Result<(), CliError> {
    let machine = Machine { settings: &settings.slurm, device: settings.device, ranks };
    let device = machine.device(&pipeline.stages);
    let interrupt = signals::listen();
    let sink = Style::Auto.open();
    let hashing = Hashing::new(Arc::clone(&sink), Arc::clone(&interrupt));
    let store = SettingsArguments::store(settings)?.watched(Arc::new(hashing));
    let training = settings.training();
    let job = |share, options, sink| Job {
        training: &training,
        pipeline,
        store: &store,
        runs: &settings.runs,
        device,
        places: &[],
        share,
        options,
        sink,
        interrupt: &interrupt,
        ranks: &Alone,
    };
    let here = |path: &Path| std::path::absolute(path).map_err(FileError::at(path));
    let flags = flags(settings, &here(&settings.cache)?, &device.to_string());
    let order = Order {
        job: &job(&Share::Survey, options, &Silent),
        machine,
        program: &env::current_exe().map_err(FileError::at(Path::new("laptop-diff")))?,
        folder: &here(Path::new("."))?,
        threads: settings.threads.map(Threads::get),
        flags: &flags,
    };
    let folder = settings.runs.join(&pipeline.name);
    let before = RunRecord::read(&folder).ok();
    let submitted = submit(&order)?;
    store.save_digests();
    if submitted.jobs == 0 && submitted.found == 0 {
        note("every stage is in the cache: no job is needed");
        let share = match &before {
            // Its jobs are over, and the one that finishes it did not come to its end.
            Some(before) if before.exit_code.is_none() => Share::Last(Box::new(slurm::last(&folder)?)),
            _ => Share::Whole,
        };
        let options = Options { keep_going: true, ..options.clone() };
        let tracker = track(settings, &folder, &share, &sink);
        let ended = execute(&job(&share, &options, &*sink));
        return conclude(settings, &folder, before.as_ref(), tracker, ended);
    }
    said(&submitted, &pipeline.name, &folder);
    Ok(())
}

/// The flags of this process that its jobs need too. Variables and settings files reach them as they are.
fn flags(settings: &Settings, cache: &Path, device: &str) -> Vec<String> {
    let mut flags = vec!["--cache".to_owned(), cache.to_string_lossy().into_owned()];
    flags.extend(["--device".to_owned(), device.to_owned()]);
    flags.extend(settings.memory.iter().flat_map(|bytes| ["--memory".to_owned(), String::from(*bytes)]));
    if settings.recheck == Recheck::All {
        flags.extend(["--recheck", "all"].map(str::to_owned));
    }
    flags
}

fn said(submitted: &Submitted, name: &str, folder: &Path) {
    let Submitted { cached, stages, jobs, found } = submitted;
    let some = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (new, stages) = (some(*jobs, "job"), some(*stages, "stage"));
    let of_jobs = match (jobs, found) {
        (0, found) => format!("in the queue already: {} of this run", some(*found, "job")),
        (_, 0) => format!("submitted {new} for {stages}; cached: {cached}"),
        (_, found) => format!("submitted {new} for {stages}; in the queue already: {}", some(*found, "job")),
    };
    note(&format!(
        "{of_jobs}\n`laptop-diff status {name}` shows them, `laptop-diff cancel {name}` stops them; logs are in {}",
        folder.join(slurm::FOLDER).display()
    ));
}
