//! `laptop-diff cache`: looks after the artefact cache.

mod du;
mod gc;
mod key;
mod ls;
mod pin;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode as ProcessExitCode;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::output::note;
use crate::cache::Store;
use crate::config::Settings;
use crate::config::settings::Layer;
use crate::run::ExitCode;

/// Look after the artefact cache: what is in it, what it takes, what can go, what is damaged
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff cache du
  laptop-diff cache ls --sort size
  laptop-diff cache gc --older-than 30d --dry-run
  laptop-diff cache verify")]
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
}

/// Which cache, and how to print.
#[derive(Args)]
struct CacheArguments {
    /// Folder of the artefact cache
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Folder of run folders, which need artefacts; the cache also knows those of other projects
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl CacheCommand {
    pub(super) fn execute(self) -> Result<ProcessExitCode, CliError> {
        match self.action {
            Action::Ls(ls) => ls.execute()?,
            Action::Du(du) => du.execute()?,
            Action::Gc(gc) => gc.execute()?,
            Action::Pin(pin) => pin.execute()?,
            Action::Unpin(unpin) => unpin.execute()?,
            Action::Verify(verify) => return verify.execute(),
        }
        Ok(ExitCode::Done.into())
    }
}

impl CacheArguments {
    fn open(&self) -> Result<(Store, Settings), CliError> {
        let layer = Layer { cache: self.cache.clone(), runs: self.runs.clone(), ..Layer::default() };
        let settings = Settings::load(layer, &mut |text| note(text))?;
        Ok((Store::open(&settings.cache)?, settings))
    }
}
