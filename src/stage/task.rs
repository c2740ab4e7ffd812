//! What rank 0 asks of the other ranks, which run no stages.

use serde::{Deserialize, Serialize};

use super::distill_task::DistillTask;
use super::{Bench, StageError};

/// One message of rank 0.
#[derive(Debug, Serialize, Deserialize)]
pub enum Task {
    /// Train along.
    Distill(Box<DistillTask>),
    /// The run ends with this exit code.
    End(u8),
}

impl Task {
    /// Does the part of a rank that is not the first. What ends the task on all ranks at the same step, such as a request to
    /// stop, is no error here: rank 0 says what comes next.
    pub fn run(&self, bench: &Bench<'_>) -> Result<(), StageError> {
        match self {
            Self::Distill(task) => task.train(bench).map(drop),
            Self::End(_) => Ok(()),
        }
    }
}
