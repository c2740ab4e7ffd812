//! SIGINT, SIGTERM and SIGHUP request a stop; a second one exits at once.

use std::sync::Arc;

use super::ExitCode;
use crate::base::Interrupt;

/// Turns signals into an [`Interrupt`]. Call it once, in the command that runs stages.
pub fn listen() -> Arc<Interrupt> {
    let interrupt = Arc::new(Interrupt::default());
    let asked = Arc::clone(&interrupt);
    let handler = move || {
        if asked.asked() {
            std::process::exit(ExitCode::Interrupted.number().into());
        }
        asked.ask();
    };
    ctrlc::set_handler(handler).expect("BUG: signal handlers are installed twice");
    interrupt
}
