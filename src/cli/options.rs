//! Flags that several commands share: the pipeline file with its overrides, and the settings that override all others.

use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::Args;

use super::error::CliError;
use super::output::note;
use crate::backend::{DeviceChoice, memory, threads};
use crate::base::units::Bytes;
use crate::cache::{Recheck, Store};
use crate::config::settings::{Layer, Threads};
use crate::config::{Override, PipelineFile, Settings};
use crate::plan::ResolvedPipeline;

/// Which pipeline.
#[derive(Args)]
pub(super) struct PipelineArguments {
    /// The pipeline file
    file: PathBuf,
    /// Override one value of the file: ID.PARAMETER=VALUE, or seed=VALUE; may be repeated
    #[arg(long, value_name = "ID.PARAMETER=VALUE")]
    set: Vec<String>,
    /// Try several values of one parameter, instead of those in the file's `sweep:`; may be repeated, for all combinations
    #[arg(long, value_name = "ID.PARAMETER=VALUE,VALUE")]
    over: Vec<String>,
}

impl PipelineArguments {
    /// Reads the file and resolves its references.
    pub(super) fn read(&self) -> Result<ResolvedPipeline, CliError> {
        let sets = self.set.iter().map(|text| Override::set(text));
        let overs = self.over.iter().map(|text| Override::over(text));
        let overrides: Vec<Override> = sets.chain(overs).collect::<Result<_, _>>()?;
        Ok(ResolvedPipeline::new(PipelineFile::read(&self.file, &overrides)?)?)
    }
}

/// How to run on this machine; these flags override the settings files.
#[derive(Args)]
pub(super) struct SettingsArguments {
    /// Folder of the artefact cache
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Folder for run folders
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
    /// Which files to read again to check their digests: changed, or all
    #[arg(long, value_name = "FILES", value_enum, hide_possible_values = true)]
    recheck: Option<Recheck>,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl SettingsArguments {
    /// All layers put together, with the threads set.
    pub(super) fn load(&self) -> Result<Settings, CliError> {
        let settings = self.read(Layer::default(), &mut |text| note(text))?;
        start(&settings, 1)?;
        Ok(settings)
    }

    /// All layers put together under these flags and `others`; nothing is set yet.
    pub(super) fn read(&self, others: Layer, note: &mut dyn FnMut(&str)) -> Result<Settings, CliError> {
        let (cache, runs, recheck) = (self.cache.clone(), self.runs.clone(), self.recheck);
        self.compute.read(Layer { cache, runs, recheck, ..others }, note)
    }

    /// The same with the number of threads that were started.
    pub(super) fn load_counted(&self) -> Result<(Settings, usize), CliError> {
        let settings = self.load()?;
        Ok((settings, threads::count()))
    }

    /// The cache that the settings name.
    pub(super) fn store(settings: &Settings) -> Result<Store, CliError> {
        let store = Store::open(&settings.cache)?.rechecking(settings.recheck);
        Ok(store.sharing(settings.shared()?))
    }
}

/// How to compute, for commands that need no cache.
#[derive(Args)]
pub(super) struct ComputeArguments {
    /// Device: auto, cpu, cuda:N or cuda:N+tf32
    #[arg(long)]
    device: Option<DeviceChoice>,
    /// Number of CPU threads
    #[arg(long)]
    threads: Option<Threads>,
    /// Approximate memory budget, such as 8GB
    #[arg(long, value_name = "BYTES")]
    memory: Option<Bytes>,
}

impl ComputeArguments {
    /// All layers put together under these flags and `others`, with threads and memory set.
    pub(super) fn load(&self, others: Layer) -> Result<Settings, CliError> {
        let settings = self.read(others, &mut |text| note(text))?;
        start(&settings, 1)?;
        Ok(settings)
    }

    fn read(&self, others: Layer, note: &mut dyn FnMut(&str)) -> Result<Settings, CliError> {
        let &Self { device, threads, memory } = self;
        let settings = Settings::load(Layer { device, threads, memory, ..others }, note)?;
        if let Some(reason) = settings.device.why_cpu() {
            note(&format!("{reason}; the CPU computes"));
        }
        Ok(settings)
    }
}

/// Starts the threads and sets the memory limit of this process, which shares the cores of this machine with others. Those
/// of `--ranks` have as many threads each as the user asked for.
pub(super) fn start(settings: &Settings, processes: usize) -> Result<(), CliError> {
    let asked = settings.threads.map(Threads::get);
    let share = || (processes > 1).then(|| (cores() / processes).max(1));
    let started = start_threads(asked.or_else(share))?;
    if let Some(asked) = asked.filter(|&asked| asked > started) {
        note(&format!("{started} threads instead of {asked}: more than 4 per core only slow it down"));
    }
    if let Some(Bytes(bytes)) = settings.memory {
        memory::allow(bytes);
    }
    Ok(())
}

/// Starts the threads of one of several workers, which share those of a run.
pub(super) fn start_worker(settings: &Settings, places: usize) -> Result<(), CliError> {
    let all = settings.threads.map_or_else(cores, Threads::get);
    start_threads(Some((all / places).max(1))).map(drop)
}

fn start_threads(threads: Option<usize>) -> Result<usize, CliError> {
    threads::start(threads).map_err(|source| CliError::Threads { source })
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}
