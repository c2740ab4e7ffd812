//! Signals that ask a run to stop: it writes a checkpoint and ends with [`ExitCode::Interrupted`], so that a batch system
//! can start the same command again.
//!
//! | signal | who sends it | a second one |
//! |---|---|---|
//! | SIGINT | Ctrl-C | ends the process at once |
//! | SIGTERM | `kill`, Slurm before it takes a job away | ends the process at once |
//! | SIGHUP | a terminal that closes | is ignored |
//! | SIGUSR1 | Slurm before the end of the time limit (`--signal=USR1@300`) | is ignored |
//!
//! Each counts for itself: SIGUSR1 some minutes before the time limit does not make the SIGTERM at the limit the second
//! one, which would cut off the checkpoint.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use super::ExitCode;
use crate::base::Interrupt;

/// Turns signals into an [`Interrupt`]. Call it once, in the command that runs stages.
pub fn listen() -> Arc<Interrupt> {
    let interrupt = Arc::new(Interrupt::default());
    let code = ExitCode::Interrupted.number().into();
    let listen = |signal, ends| {
        if ends {
            let again = Arc::new(AtomicBool::new(false));
            // Handlers run in this order: the first signal finds the flag down.
            flag::register_conditional_shutdown(signal, code, Arc::clone(&again))?;
            flag::register(signal, again)?;
        }
        flag::register(signal, interrupt.flag())
    };
    for (signal, ends) in [(SIGINT, true), (SIGTERM, true), (SIGHUP, false), (SIGUSR1, false)] {
        listen(signal, ends).expect("these signals can be handled");
    }
    interrupt
}

/// Leaves all of these signals to the process of the run, which tells its workers to stop. A terminal and a batch system
/// send them to every process.
pub fn leave_to_another() -> Arc<Interrupt> {
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGUSR1] {
        flag::register(signal, Arc::default()).expect("these signals can be handled");
    }
    Arc::default()
}
