//! `laptop-diff cache`: looks after the artefact cache.

use std::path::PathBuf;
use std::process::ExitCode as ProcessExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::output::{note, print, print_json};
use crate::base::units;
use crate::cache::{Recheck, Store, Verification};
use crate::config::Settings;
use crate::config::settings::Layer;
use crate::run::{ExitCode, Hashing, signals};
use crate::ui::Style;

/// Look after the artefact cache
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff cache verify
  laptop-diff cache verify --cache /scratch/cache --json")]
pub(super) struct CacheCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Verify(Verify),
}

/// Read every byte of the cache and compare it with what was committed
#[derive(Args)]
#[command(after_help = "\
It prints what is damaged and ends with exit code 4 if there is any. It changes no artefact:
the next run makes again what is damaged and needed.

Examples:
  laptop-diff cache verify
  laptop-diff cache verify --json")]
struct Verify {
    /// Folder of the artefact cache
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl CacheCommand {
    pub(super) fn execute(self) -> Result<ProcessExitCode, CliError> {
        match self.action {
            Action::Verify(verify) => verify.execute(),
        }
    }
}

impl Verify {
    fn execute(self) -> Result<ProcessExitCode, CliError> {
        let settings =
            Settings::load(Layer { cache: self.cache, ..Layer::default() }, &mut |text| note(text))?;
        let interrupt = signals::listen();
        let hashing = Hashing::new(Style::Auto.open(), Arc::clone(&interrupt));
        let store = Store::open(&settings.cache)?.rechecking(Recheck::All).watched(Arc::new(hashing));
        let found = store.verify(&interrupt)?;
        if self.json {
            print_json(&found)?
        } else {
            print(&shown(&found))?
        }
        Ok(if found.is_whole() { ExitCode::Done.into() } else { ExitCode::File.into() })
    }
}

fn shown(found: &Verification) -> String {
    let mut text = String::new();
    for damage in &found.damaged {
        text.push_str(&format!("{damage}\n"));
    }
    for file in &found.unreadable {
        text.push_str(&format!("{} cannot be read: {}\n", file.path.display(), file.reason));
    }
    let (damaged, unreadable) = (found.damaged.len(), found.unreadable.len());
    let outcome = match (damaged, unreadable) {
        (0, 0) => "no damage".to_owned(),
        (damaged, 0) => format!("{damaged} damaged"),
        (damaged, unreadable) => format!("{damaged} damaged, {unreadable} unreadable"),
    };
    let Verification { entries, artefacts, bytes, .. } = found;
    text.push_str(&format!(
        "{entries} entries, {artefacts} artefacts, {}: {outcome}\n",
        units::bytes(*bytes)
    ));
    text
}
