//! What a job asks of Slurm: the settings of its stages put together.

use super::SlurmError;
use crate::backend::{DeviceChoice, DeviceClass};
use crate::config::SlurmSettings;
use crate::config::slurm::{Branches, Cores, FINISH, Resources, TimeLimit, Word};
use crate::plan::PlannedStage;

/// The stage that uses several processes.
const TRAINS: &str = "distill";

/// What the flags and settings say of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The settings `slurm:`.
    pub settings: &'a SlurmSettings,
    /// The device that was asked for.
    pub device: DeviceChoice,
    /// The processes of a training, if a flag says so.
    pub ranks: Option<usize>,
}

/// What one job asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asks {
    pub(super) partition: Option<Word>,
    pub(super) account: Option<Word>,
    pub(super) time: Option<TimeLimit>,
    pub(super) gpus: usize,
    pub(super) cpus: Option<Cores>,
    /// Bytes on each machine.
    pub(super) memory: Option<u64>,
    pub(super) nodes: usize,
    pub(super) ranks: usize,
    /// The tasks of an array that run at once.
    pub(super) at_once: Option<Branches>,
    /// Lines of the user's.
    pub(super) lines: Vec<String>,
    /// Whether nothing else may run on its machines, because it measures times.
    pub(super) exclusive: bool,
}

impl Machine<'_> {
    /// The device of the jobs. `auto` is resolved where they run on GPUs: this machine may have none, and the class of the
    /// device is part of keys.
    pub fn device<'s>(&self, stages: impl IntoIterator<Item = &'s PlannedStage>) -> DeviceChoice {
        let mut asks = stages.into_iter().map(|stage| self.gpus(stage));
        match self.device {
            DeviceChoice::Auto if asks.any(|gpus| gpus > 0) => DeviceChoice::Cuda(0),
            DeviceChoice::Auto => DeviceChoice::Cpu,
            named => named,
        }
    }

    fn gpus(&self, stage: &PlannedStage) -> usize {
        if self.device == DeviceChoice::Cpu {
            return 0;
        }
        let info = stage.stage.info();
        let all = self.settings.default_resources().gpus.filter(|_| info.computes);
        self.settings.of(info.name).gpus.or(all).map_or(0, |gpus| gpus.get())
    }
}

impl Asks {
    /// What a stage asks for.
    pub(super) fn of(machine: &Machine<'_>, stage: &PlannedStage) -> Result<Self, SlurmError> {
        let name = stage.stage.info().name;
        let (all, own) = (machine.settings.default_resources(), machine.settings.of(name));
        let mut asks = Self::layered(all, own);
        asks.gpus = machine.gpus(stage);
        if let Some(ranks) = machine.ranks.filter(|_| name == TRAINS) {
            asks.ranks = ranks;
        }
        if asks.ranks % asks.nodes > 0 {
            return Err(SlurmError::Ranks { stage: name, ranks: asks.ranks, nodes: asks.nodes });
        }
        // On a GPU of its own, neighbours disturb little, and a whole machine would cost much.
        let on_cpu = machine.device.class() == DeviceClass::Cpu && asks.gpus == 0;
        asks.exclusive = on_cpu && stage.stage.measures_machine();
        Ok(asks)
    }

    /// What the job asks for that finishes the run.
    pub(super) fn finish(machine: &Machine<'_>) -> Self {
        let Machine { settings, .. } = machine;
        let mut asks = Self::layered(settings.default_resources(), settings.of(FINISH));
        (asks.nodes, asks.ranks) = (1, 1);
        asks
    }

    fn layered(all: Resources, own: Resources) -> Self {
        let lines = [all.lines, own.lines].into_iter().flatten().flatten();
        Self {
            partition: own.partition.or(all.partition),
            account: own.account.or(all.account),
            time: own.time.or(all.time),
            gpus: 0,
            cpus: own.cpus.or(all.cpus),
            memory: own.memory.or(all.memory).map(|bytes| bytes.0),
            nodes: own.nodes.or(all.nodes).map_or(1, |nodes| nodes.get()),
            ranks: own.ranks.or(all.ranks).map_or(1, |ranks| ranks.get()),
            at_once: own.branches_at_once.or(all.branches_at_once),
            lines: lines.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect(),
            exclusive: false,
        }
    }

    /// The same with as much memory as a stage that computes nothing asks for.
    pub(super) fn with(self, light: &Self) -> Self {
        Self { memory: self.memory.max(light.memory), ..self }
    }
}
