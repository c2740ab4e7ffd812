//! `laptop-diff sweep`: `run` of several values of a parameter.

use clap::Args;

use super::error::CliError;
use super::run::Run;

/// Run a pipeline for several values of its parameters: stages that no value reaches run once
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff sweep pipelines/nano50.yaml --over selection.ratio=0.3,0.5,0.7
  laptop-diff sweep pipelines/nano50.yaml --over selection.criterion=output-loss,magnitude --over selection.ratio=0.3,0.5
  laptop-diff sweep pipelines/nano-criteria.yaml --keep-going   # the values of the file's `sweep:`

It is `laptop-diff run` of a file with a `sweep:` block. A stage that the values reach runs once for each combination of
them, as `selection@ratio=0.3`; what is there already, by whatever way, is kept. The report shows all of them together.
What is wrong in the file, such as a value that no stage takes or a missing file, stops a sweep before it starts, also
with --keep-going.")]
pub(super) struct Sweep {
    #[command(flatten)]
    run: Run,
}

impl Sweep {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let pipeline = self.run.pipeline.read()?;
        if pipeline.axes.is_empty() {
            return Err(CliError::NothingToSweep { path: pipeline.path().to_owned() });
        }
        self.run.run(&pipeline)
    }
}
