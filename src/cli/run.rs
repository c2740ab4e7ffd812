//! `laptop-diff run`: runs what is missing, resumes what was interrupted, and writes the report.

use std::process::ExitCode as ProcessExitCode;
use std::sync::Arc;

use clap::Args;

use super::ending::{conclude, track};
use super::error::CliError;
use super::options::{self, PipelineArguments, SettingsArguments};
use super::output::note;
use super::plan;
use super::ranks::{Ranks, Start};
use super::submit::{Executor, to_slurm};
use crate::backend::{DeviceChoice, Devices};
use crate::base::{Interrupt, StageId};
use crate::config::Settings;
use crate::config::settings::{Jobs, Layer};
use crate::plan::ResolvedPipeline;
use crate::run::{self, ExitCode, Hashing, Job, Options, RunRecord, Share, Sink, ToRun, execute};
use crate::train::collective::{Alone, Collective};
use crate::ui::Style;

/// Run a pipeline: runs what is missing, resumes what was interrupted, reuses the rest
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff run pipelines/nano50.yaml
  laptop-diff run pipelines/nano50.yaml --set selection.ratio=0.3 --set name=nano30
  laptop-diff run pipelines/nano50.yaml --until selection --json
  laptop-diff run pipelines/nano-sweep.yaml --jobs 4       # four stages at a time
  laptop-diff run pipelines/nano-sweep.yaml --devices cuda:0,cuda:1,cpu
  laptop-diff run pipelines/nano50.yaml --ranks 2          # train with two processes, one per GPU
  srun laptop-diff run pipelines/nano50.yaml               # with as many as the Slurm job has tasks
  laptop-diff run pipelines/sd15-50.yaml --executor slurm  # as jobs of the cluster

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
    /// Train with N processes on this machine, one per GPU; srun, mpirun and torchrun start them on several machines
    #[arg(long, value_name = "N")]
    ranks: Option<Ranks>,
    /// Show what would run, and why, and run nothing, as `laptop-diff plan` does
    #[arg(long, conflicts_with_all = ["force", "keep_going", "ranks", "jobs", "devices"])]
    dry_run: bool,
    /// How many stages run at the same time, each in a process of its own; stages that measure time run alone
    #[arg(long, value_name = "N")]
    jobs: Option<Jobs>,
    /// Devices that run one stage each at the same time: cuda:0,cuda:1,cpu; beside GPUs, the CPU runs what needs none
    #[arg(long, value_name = "DEVICES", conflicts_with = "device")]
    devices: Option<Devices>,
    /// Who runs the stages: local, or slurm, which submits them as jobs and ends
    #[arg(
        long,
        value_name = "EXECUTOR",
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true
    )]
    executor: Executor,
    /// Be a worker of another process of the same command, on this device
    #[arg(long, value_name = "DEVICE", hide = true)]
    worker: Option<DeviceChoice>,
    /// Print events on stdout, one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArguments,
}

impl Run {
    pub(super) fn execute(self) -> Result<ProcessExitCode, CliError> {
        self.start(|_| Ok(()))
    }

    /// Runs as the process that this is: alone, the first of several, or another one. `check` may refuse the pipeline.
    pub(super) fn start(
        self,
        check: impl FnOnce(&ResolvedPipeline) -> Result<(), CliError>,
    ) -> Result<ProcessExitCode, CliError> {
        if self.dry_run {
            let pipeline = self.pipeline.read()?;
            check(&pipeline)?;
            let settings = self.settings.load()?;
            let until = self.until.map(StageId::from);
            plan::show(&pipeline, &settings, until.as_ref(), self.json)?;
            return Ok(ExitCode::Done.into());
        }
        if let Some(device) = self.worker {
            return self.serve(device);
        }
        if self.executor == Executor::Slurm {
            return self.submit(check);
        }
        let Some(start) = Start::find(self.ranks)? else {
            let pipeline = self.pipeline.read()?;
            check(&pipeline)?;
            let settings = self.read_settings(&mut |text| note(text))?;
            options::start(&settings, 1)?;
            let places = self.places(&settings);
            self.run(&pipeline, &settings, &places, &run::signals::listen(), &Alone)?;
            return Ok(ExitCode::Done.into());
        };
        let given = [("--jobs", self.jobs.is_some()), ("--devices", self.devices.is_some())];
        if let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(CliError::JobsOfRanks { flag });
        }
        start.lead_or_follow(self.read_settings(&mut |text| note(text))?, |settings, interrupt, ranks| {
            let pipeline = self.pipeline.read()?;
            check(&pipeline)?;
            self.run(&pipeline, settings, &[], interrupt, ranks)
        })
    }

    /// Gives the stages to a cluster.
    fn submit(
        self,
        check: impl FnOnce(&ResolvedPipeline) -> Result<(), CliError>,
    ) -> Result<ProcessExitCode, CliError> {
        let given =
            [("--jobs", self.jobs.is_some()), ("--devices", self.devices.is_some()), ("--json", self.json)];
        if let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(CliError::FlagOfLocal { flag });
        }
        let pipeline = self.pipeline.read()?;
        check(&pipeline)?;
        let settings = self.read_settings(&mut |text| note(text))?;
        options::start(&settings, 1)?;
        to_slurm(&pipeline, &settings, &self.options(), self.ranks.map(Ranks::get))?;
        Ok(ExitCode::Done.into())
    }

    fn read_settings(&self, note: &mut dyn FnMut(&str)) -> Result<Settings, CliError> {
        let mut settings = self.settings.read(Layer { jobs: self.jobs, ..Layer::default() }, note)?;
        if let Some(devices) = &self.devices {
            settings.device = devices.main();
        }
        Ok(settings)
    }

    /// The device of each stage that may run at the same time.
    fn places(&self, settings: &Settings) -> Vec<DeviceChoice> {
        let mut places =
            self.devices.as_ref().map_or(vec![settings.device], |devices| devices.all().to_vec());
        let jobs = settings.jobs.get().max(places.len());
        places.resize(jobs, DeviceChoice::Cpu);
        places
    }

    /// Obtains stages for another process of the same command.
    fn serve(&self, device: DeviceChoice) -> Result<ProcessExitCode, CliError> {
        let interrupt = run::signals::leave_to_another();
        let mut settings = self.read_settings(&mut |_| ())?;
        let places = self.places(&settings);
        options::start_worker(&settings, places.len())?;
        settings.device = device;
        let pipeline = self.pipeline.read()?;
        let (sink, options) = (Arc::new(ToRun), self.options());
        let hashing = Hashing::new(Arc::clone(&sink) as Arc<dyn Sink>, Arc::clone(&interrupt));
        let store = SettingsArguments::store(&settings)?.watched(Arc::new(hashing));
        run::serve(&Job {
            training: &settings.training(),
            pipeline: &pipeline,
            store: &store,
            runs: &settings.runs,
            device: settings.device,
            places: &[],
            options: &options,
            share: &Share::Whole,
            sink: &*sink,
            interrupt: &interrupt,
            ranks: &Alone,
        });
        Ok(ExitCode::Done.into())
    }

    fn options(&self) -> Options {
        Options {
            until: self.until.clone().map(StageId::from),
            force: self.force.iter().cloned().map(StageId::from).collect(),
            keep_going: self.keep_going,
        }
    }

    fn run(
        &self,
        pipeline: &ResolvedPipeline,
        settings: &Settings,
        places: &[DeviceChoice],
        interrupt: &Arc<Interrupt>,
        ranks: &dyn Collective,
    ) -> Result<(), CliError> {
        let sink = if self.json { Style::Json } else { Style::Auto }.open();
        let hashing = Hashing::new(Arc::clone(&sink), Arc::clone(interrupt));
        let store = SettingsArguments::store(settings)?.watched(Arc::new(hashing));
        let options = self.options();
        let training = settings.training();
        let job = Job {
            training: &training,
            pipeline,
            store: &store,
            runs: &settings.runs,
            device: settings.device,
            places,
            options: &options,
            share: &Share::Whole,
            sink: &*sink,
            interrupt,
            ranks,
        };
        let folder = settings.runs.join(&pipeline.name);
        let before = RunRecord::read(&folder).ok();
        let tracker = track(settings, &folder, &Share::Whole, &sink);
        conclude(settings, &folder, before.as_ref(), tracker, execute(&job))
    }
}
