//! What a process does that is not the first rank: it plans nothing and writes nothing, but waits for tasks of rank 0 and
//! trains along.

use std::panic::{self, AssertUnwindSafe};
use std::sync::OnceLock;

use super::{ExitCode, RunError};
use crate::backend::{DeviceChoice, threads};
use crate::base::Interrupt;
use crate::stage::{Bench, StageError, Task};
use crate::train::collective::{Collective, hear};
use crate::train::watch::Watchers;

/// Does the tasks of rank 0 until it ends; gives the number of its exit code. A wish to stop reaches rank 0 with the
/// training.
pub fn follow(ranks: &dyn Collective, asked: DeviceChoice, interrupt: &Interrupt) -> Result<u8, RunError> {
    let device = OnceLock::new();
    let run = |task: Task| {
        if device.get().is_none() {
            let opened = asked.open().inspect_err(|error| ranks.fail(&error.to_string()))?;
            let _ = device.set(opened);
        }
        let device = device.get().expect("it was opened");
        task.run(&Bench::beside(device, ranks, &Watchers::default(), interrupt))
    };
    let failed = |source: StageError| {
        let code = ExitCode::of_stage(&source, |_| false);
        RunError::Rank { rank: ranks.rank(), code, source }
    };
    loop {
        let task = match hear(ranks) {
            Ok(Task::End(code)) => return Ok(code),
            task => task.map_err(StageError::from).map_err(failed)?,
        };
        match panic::catch_unwind(AssertUnwindSafe(|| threads::run(|| run(task)))) {
            Ok(ended) => ended.map_err(failed)?,
            Err(payload) => {
                ranks.fail("a bug in laptop-diff; its own message says more");
                panic::resume_unwind(payload);
            }
        }
    }
}
