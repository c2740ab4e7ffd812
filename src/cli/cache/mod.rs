//! `laptop-diff cache`: looks after the artefact cache.

mod du;
mod exchange;
mod gc;
mod key;
mod ls;
mod options;
mod pin;
mod verify;

use std::process::ExitCode as ProcessExitCode;

use clap::{Args, Subcommand};

use super::error::CliError;
use crate::run::ExitCode;

/// Look after the artefact cache: what is in it, what it takes, what can go, what is damaged
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff cache du
  laptop-diff cache ls --sort size
  laptop-diff cache gc --older-than 30d --dry-run
  laptop-diff cache verify
  laptop-diff cache push nano50")]
pub(super) struct CacheCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Ls(ls::Ls),
    Du(du::Du),
    Gc(gc::Gc),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Verify(verify::Verify),
    Push(exchange::Push),
    Pull(exchange::Pull),
}

impl CacheCommand {
    pub(super) fn execute(self) -> Result<ProcessExitCode, CliError> {
        match self.action {
            Action::Ls(ls) => ls.execute()?,
            Action::Du(du) => du.execute()?,
            Action::Gc(gc) => gc.execute()?,
            Action::Pin(pin) => pin.execute()?,
            Action::Unpin(unpin) => unpin.execute()?,
            Action::Push(push) => push.execute()?,
            Action::Pull(pull) => return pull.execute(),
            Action::Verify(verify) => return verify.execute(),
        }
        Ok(ExitCode::Done.into())
    }
}
