//! `laptop-diff cancel`: takes the jobs of a run from the cluster.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use super::output::{note, print};
use super::run_folder::GivenRun;
use crate::config::Settings;
use crate::config::settings::Layer;
use crate::slurm;

/// Cancel the Slurm jobs of runs; what they have made stays
#[derive(Args)]
#[command(after_help = "\
Jobs that run write a checkpoint first. The command that submitted the run resumes it.

Examples:
  laptop-diff cancel nano-sweep")]
pub(super) struct Cancel {
    /// Runs, by name or folder
    #[arg(value_name = "RUN", required = true)]
    run: Vec<PathBuf>,
    /// Folder of the run folders
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
}

impl Cancel {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let settings = Settings::load(Layer { runs: self.runs, ..Layer::default() }, &mut |text| note(text))?;
        for given in &self.run {
            let run = GivenRun::find(given, &settings.runs)?;
            match slurm::cancel(&run.folder)? {
                0 => note(&format!("no job of {} is in the queue", run.folder.display())),
                count => print(&format!("cancelled {count} jobs of {}\n", run.folder.display()))?,
            }
        }
        Ok(())
    }
}
