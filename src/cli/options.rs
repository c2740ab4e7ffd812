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
        self.load_for(1)
    }

    /// The same for one of several processes that share the cores of this machine.
    pub(super) fn load_for(&self, processes: usize) -> Result<Settings, CliError> {
        let (cache, runs, recheck) = (self.cache.clone(), self.runs.clone(), self.recheck);
        self.compute.load_for(Layer { cache, runs, recheck, ..Layer::default() }, processes)
    }

    /// The same with the number of threads that were started.
    pub(super) fn load_counted(&self) -> Result<(Settings, usize), CliError> {
        let settings = self.load()?;
        Ok((settings, threads::count()))
    }

    /// The cache that the settings name.
    pub(super) fn store(settings: &Settings) -> Result<Store, CliError> {
        Ok(Store::open(&settings.cache)?.rechecking(settings.recheck))
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
        self.load_for(others, 1)
    }

    fn load_for(&self, others: Layer, processes: usize) -> Result<Settings, CliError> {
        let &Self { device, threads, memory } = self;
        let settings = Settings::load(Layer { device, threads, memory, ..others }, &mut |text| note(text))?;
        let asked = settings.threads.map(Threads::get);
        let share =
            || (processes > 1).then(|| (available_parallelism().map_or(1, usize::from) / processes).max(1));
        let started = threads::start(asked.or_else(share)).map_err(|source| CliError::Threads { source })?;
        if let Some(asked) = asked.filter(|&asked| asked > started) {
            note(&format!("{started} threads instead of {asked}: more than 4 per core only slow it down"));
        }
        if let Some(reason) = settings.device.why_cpu() {
            note(&format!("{reason}; the CPU computes"));
        }
        if let Some(Bytes(bytes)) = settings.memory {
            memory::allow(bytes);
        }
        Ok(settings)
    }
}
