//! Pipelines for the tests of this module.

use std::path::Path;

use crate::config::PipelineFile;
use crate::plan::ResolvedPipeline;

/// A sweep with a stage that many read, a chain, a stage beside it, and two branches.
pub(super) const SWEEP: &str = "\
format: 1
name: sweep
seed: 7
stages:
  - { id: teacher, use: load, with: { model: nano } }
  - { id: points, use: calibrate, with: { model: teacher, prompts: p.txt, samples: 2 } }
  - { id: scores, use: score, with: { model: teacher, calibration: points } }
  - { id: held-out, use: calibrate, with: { model: teacher, prompts: q.txt, samples: 2 } }
  - { id: selection, use: select, with: { scores: scores, ratio: 0.5 } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - { id: retrained, use: distill, with: { teacher: teacher, student: student, data: points, training: { steps: 2 } } }
sweep:
  selection.ratio: [0.3, 0.5]
";

pub(super) fn pipeline(text: &str) -> ResolvedPipeline {
    let file = PipelineFile::parse(Path::new("sweep.yaml"), text, &[]).expect("it is right");
    ResolvedPipeline::new(file).expect("its references are right")
}

/// The ids of stages.
pub(super) fn ids(pipeline: &ResolvedPipeline, stages: &[usize]) -> Vec<String> {
    stages.iter().map(|&index| pipeline.stages[index].id.to_string()).collect()
}
