//! What to run: the stages that flags choose, and where results go.

use std::collections::BTreeSet;
use std::path::Path;

use super::{RunError, Share, Sink};
use crate::backend::DeviceChoice;
use crate::base::{Interrupt, StageId};
use crate::cache::Store;
use crate::plan::{PlannedStage, ResolvedPipeline};
use crate::train::TrainingSettings;
use crate::train::collective::Collective;

/// A run to execute.
pub struct Job<'a> {
    /// The pipeline.
    pub pipeline: &'a ResolvedPipeline,
    /// The artefact cache.
    pub store: &'a Store,
    /// The folder of run folders; this run's is named after the pipeline.
    pub runs: &'a Path,
    /// The device, which is opened when the first stage runs.
    pub device: DeviceChoice,
    /// Where stages run side by side: the device of each that may run at the same time. With less than two, one runs after
    /// the other, on `device`.
    pub places: &'a [DeviceChoice],
    /// Which of them this process runs.
    pub share: &'a Share,
    /// Which stages to run.
    pub options: &'a Options,
    /// How trainings are kept and watched.
    pub training: &'a TrainingSettings,
    /// Receives the events.
    pub sink: &'a dyn Sink,
    /// Checked for a request to stop.
    pub interrupt: &'a Interrupt,
    /// The processes that train together; this one is the first.
    pub ranks: &'a dyn Collective,
}

/// Which stages of a pipeline to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only this stage and those it needs.
    pub until: Option<StageId>,
    /// Run these from scratch, even if their artefacts or checkpoints are there.
    pub force: BTreeSet<StageId>,
    /// After a failure, run the stages that do not need the failed one.
    pub keep_going: bool,
}

impl Job<'_> {
    /// The device that stages of this process are given: a job whose stages compute nothing opens no GPU.
    pub(super) fn opens(&self) -> DeviceChoice {
        let computes = |&index: &usize| self.pipeline.stages[index].stage.info().computes;
        match self.share {
            Share::Part(part) if !part.own.iter().any(computes) => DeviceChoice::Cpu,
            _ => self.device,
        }
    }

    /// Whether a stage is made from scratch.
    pub fn is_forced(&self, planned: &PlannedStage) -> bool {
        [&planned.id, &planned.origin].into_iter().any(|id| self.options.force.contains(id))
    }
}

impl Options {
    /// The stages of a pipeline that run, by index.
    pub fn wanted(&self, pipeline: &ResolvedPipeline) -> Result<BTreeSet<usize>, RunError> {
        for id in &self.force {
            named(pipeline, "--force", id)?;
        }
        match &self.until {
            Some(id) => {
                let stages = named(pipeline, "--until", id)?;
                Ok(stages.into_iter().flat_map(|index| pipeline.graph.with_ancestors(index)).collect())
            }
            None => Ok(pipeline.graph.order().iter().copied().collect()),
        }
    }
}

/// The stages that a flag names: one, or in a sweep all branches of one.
fn named(pipeline: &ResolvedPipeline, flag: &'static str, id: &StageId) -> Result<Vec<usize>, RunError> {
    let is_named = |planned: &PlannedStage| planned.id == *id || planned.origin == *id;
    let stages: Vec<_> =
        (0..pipeline.stages.len()).filter(|&index| is_named(&pipeline.stages[index])).collect();
    if stages.is_empty() {
        let is_branch = id.as_str().contains('@');
        let known = pipeline.stages.iter().map(|entry| if is_branch { &entry.id } else { &entry.origin });
        let mut known: Vec<String> = known.map(StageId::to_string).collect();
        let mut seen = BTreeSet::new();
        known.retain(|name| seen.insert(name.clone()));
        return Err(RunError::UnknownStage { flag, found: id.clone(), known });
    }
    Ok(stages)
}
