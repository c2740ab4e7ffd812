//! `laptop-diff sweep`: `run` for several values of a parameter.

use std::process::ExitCode;

use clap::Args;

use super::error::CliError;
use super::run::Run;

/// Run a pipeline for several values of its parameters; stages that do not depend on them run once
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff sweep pipelines/nano50.yaml --over selection.ratio=0.3,0.5,0.7
  laptop-diff sweep pipelines/nano50.yaml --over selection.criterion=output-loss,magnitude --over selection.ratio=0.3,0.5
  laptop-diff sweep pipelines/nano-criteria.yaml --keep-going   # the values of the file's `sweep:`

This is `laptop-diff run` for a file with a `sweep:` block. A stage that depends on swept values runs once for each
combination of them, as `selection@ratio=0.3`. Cached artefacts are reused, whichever command made them. The report shows
all branches together. An error in the file, such as an invalid value or a missing file, stops the sweep before it starts,
even with --keep-going.")]
pub(super) struct Sweep {
    #[command(flatten)]
    run: Run,
}

impl Sweep {
    pub(super) fn execute(self) -> Result<ExitCode, CliError> {
        self.run.start(|pipeline| match pipeline.axes.is_empty() {
            true => Err(CliError::NothingToSweep { path: pipeline.path().to_owned() }),
            false => Ok(()),
        })
    }
}
