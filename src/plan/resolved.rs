//! A pipeline ready to run: its sweep expanded, its references resolved.

use std::path::Path;

use super::expand::{Expanded, PlannedStage, expand, single};
use super::graph::Graph;
use super::references;
use crate::base::StageId;
use crate::config::{Axis, ConfigError, ConfigErrorKind, Pipeline, PipelineFile, Place, StageEntry};
use crate::stage::Stage;

/// A pipeline with all stages of its sweep and their references.
pub struct ResolvedPipeline {
    /// The run folder's name.
    pub name: String,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The stages in the order of the file; those of a sweep combination by combination.
    pub stages: Vec<PlannedStage>,
    /// The references between stages, by their indices in `stages`.
    pub graph: Graph,
    /// The axes of the sweep.
    pub axes: Vec<Axis>,
    file: PipelineFile,
}

impl ResolvedPipeline {
    /// Expands a file's sweep and resolves its references.
    pub fn new(file: PipelineFile) -> Result<Self, ConfigError> {
        let expanded = expand(&file)?;
        Self::link(file, expanded)
    }

    /// A pipeline built by a program; its errors have no location in a file.
    pub fn of_stages(
        name: impl Into<String>,
        seed: u64,
        stages: Vec<(StageId, Box<dyn Stage>)>,
        path: &Path,
    ) -> Result<Self, ConfigError> {
        let stages = stages.into_iter().map(|(id, stage)| StageEntry { id, stage }).collect();
        let pipeline = Pipeline { name: name.into(), seed, stages, gates: Vec::new() };
        Self::link(PipelineFile::absent(path), single(pipeline))
    }

    fn link(file: PipelineFile, Expanded { name, seed, stages }: Expanded) -> Result<Self, ConfigError> {
        let axes = file.sweep().axes.clone();
        match references::resolve(&stages) {
            Ok(graph) => Ok(Self { name, seed, stages, graph, axes, file }),
            Err((stage, input, kind)) => Err(file.error(*kind, &place(&axes, &stages[stage], &input))),
        }
    }

    /// The text after overrides, which is stored in the record of a run.
    pub fn text(&self) -> &str {
        self.file.text()
    }

    /// The pipeline file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The folder at which relative paths start.
    pub fn folder(&self) -> &Path {
        self.file.folder()
    }

    /// The error `kind` at the value of a stage's parameter.
    pub fn error(&self, kind: ConfigErrorKind, stage: usize, parameter: &str) -> ConfigError {
        self.file.error(kind, &place(&self.axes, &self.stages[stage], parameter))
    }
}

/// The location of the value of a stage's parameter: in the stage, or in `sweep:`.
fn place(axes: &[Axis], planned: &PlannedStage, parameter: &str) -> Place {
    let whole = format!("{}.{parameter}", planned.origin);
    let swept = axes.iter().find_map(|axis| {
        let value = planned.branch.get(&axis.name)?;
        let index = axis.values.iter().position(|other| other == value)?.to_string();
        // The axis may contain the parameter: `result.models` contains `result.models.pruned`.
        let within =
            whole.strip_prefix(&axis.parameter).filter(|rest| rest.is_empty() || rest.starts_with('.'))?;
        let steps = within.split('.').filter(|step| !step.is_empty());
        Some(Place::value(["sweep", &axis.parameter, &index].into_iter().chain(steps)))
    });
    swept.unwrap_or_else(|| Place::parameter(planned.position, parameter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{SWEPT, resolve};

    #[test]
    fn a_place_inside_a_swept_value_is_found() {
        let sweep = "sweep:\n  e.models: [{ model: m }, { other: m, model: m }]\n";
        let pipeline = resolve(&format!("{SWEPT}{sweep}")).expect("it is right");
        let place = |index: usize, parameter: &str| place(&pipeline.axes, &pipeline.stages[index], parameter);
        let last = pipeline.stages.len() - 1;
        assert_eq!(place(last, "models.other"), Place::value(["sweep", "e.models", "1", "other"]));
        assert_eq!(place(1, "ratio"), Place::parameter(1, "ratio"));
    }
}
