//! SIGINT, SIGTERM and SIGHUP ask for a stop; a second one does not ask.

use std::sync::Arc;

use super::ExitCode;
use crate::base::Interrupt;

/// Turns signals into an [`Interrupt`]. To be called once, by the command that runs stages.
pub fn listen() -> Arc<Interrupt> {
    let interrupt = Arc::new(Interrupt::default());
    let asked = Arc::clone(&interrupt);
    let handler = move || {
        if asked.asked() {
            std::process::exit(ExitCode::Interrupted.number().into());
        }
        asked.ask();
    };
    ctrlc::set_handler(handler).expect("BUG: signals are listened to twice");
    interrupt
}
