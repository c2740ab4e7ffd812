//! A run as jobs of a Slurm cluster.
//!
//! [`submit`] looks up what the cache has, groups the other stages (`group`), puts branches of a sweep that are alike into arrays
//! (`array`), writes a script for each (`script`) and gives it
//! to `sbatch` with the jobs that it waits for. A job runs this program on its stages ([`Part`](crate::run::Part)); it needs the
//! run folder and the cache, and nothing of the process that submitted it. A last job finishes the run
//! ([`Last`](crate::run::Last)). `slurm/` of the run folder holds the record of the jobs (`record`), their scripts and their logs, so any
//! later process finds them again. `commands` alone speaks to Slurm.

mod array;
mod asks;
mod commands;
mod error;
mod group;
mod last;
mod record;
mod script;
mod status;
mod submit;
#[cfg(test)]
mod testing;

pub use asks::Machine;
pub use error::SlurmError;
pub use last::last;
pub use record::{FOLDER, JobId, Submission, event_log};
pub use status::{JobStatus, cancel, has_jobs, jobs};
pub use submit::{Order, Submitted, submit};
