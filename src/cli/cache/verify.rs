//! `laptop-diff cache verify`: finds damage, and removes it if that is asked for.

use std::process::ExitCode as ProcessExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::super::error::CliError;
use super::super::output::{note, print, print_json};
use super::CacheArguments;
use crate::base::units;
use crate::cache::{Needed, Place, Recheck, Store, Verification};
use crate::run::{ExitCode, Hashing, roots, signals};
use crate::ui::Style;

/// Read every byte of the cache and compare it with what was committed
#[derive(Args)]
#[command(after_help = "\
It prints what is damaged, with the runs that need it, and ends with exit code 4 if there is any. Without --repair it
changes no artefact: the next run makes again what is damaged and needed. With --repair, what is damaged is removed, which
also frees its space, and the exit code is 0 if everything could be read.

Examples:
  laptop-diff cache verify
  laptop-diff cache verify --repair
  laptop-diff cache verify --json")]
pub(super) struct Verify {
    /// Remove what is damaged, so that it is made again when it is needed
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    cache: CacheArguments,
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    found: &'a Verification,
    repaired: bool,
}

impl Verify {
    pub(super) fn execute(self) -> Result<ProcessExitCode, CliError> {
        let (store, settings) = self.cache.open()?;
        let interrupt = signals::listen();
        let hashing = Hashing::new(Style::Auto.open(), Arc::clone(&interrupt));
        let store = store.rechecking(Recheck::All).watched(Arc::new(hashing));
        let found = store.verify(&interrupt)?;
        let repaired = self.repair && !found.damaged.is_empty();
        // Whom it concerns is known only as long as the entries are there.
        let text = if self.cache.json { String::new() } else { shown(&found, &store, &settings.runs) };
        if repaired {
            store.repair(&found, &interrupt)?;
        }
        if self.cache.json {
            print_json(&Told { found: &found, repaired })?;
        } else {
            print(&text)?;
            match found.damaged.len() {
                0 => {}
                count if repaired => {
                    note(&format!("removed {count} damaged; the next run makes again what it needs"))
                }
                _ => note(
                    "`laptop-diff cache verify --repair` removes what is damaged; the next run makes it again",
                ),
            }
        }
        let is_well = found.unreadable.is_empty() && (repaired || found.damaged.is_empty());
        Ok(if is_well { ExitCode::Done.into() } else { ExitCode::File.into() })
    }
}

fn shown(found: &Verification, store: &Store, runs: &std::path::Path) -> String {
    let mut text = String::new();
    // A damaged cache may not know who needs what.
    let needed = roots::needed(store, runs).unwrap_or_default();
    for damage in &found.damaged {
        let by = Place::of(&damage.path).map_or(Vec::new(), |place| users(store, &needed, &place));
        let by = if by.is_empty() { String::new() } else { format!(", needed by {}", by.join(", ")) };
        text.push_str(&format!("{damage}{by}\n"));
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

/// Who needs an artefact, by its digest or by the keys of its entries.
fn users(store: &Store, needed: &Needed, place: &Place) -> Vec<String> {
    let contents = store.contents().unwrap_or_default();
    let keys = contents.entries.iter().filter(|kept| kept.entry.digest == place.digest);
    let all = keys.map(|kept| kept.entry.key).chain([place.digest]);
    let mut names: Vec<String> = all.flat_map(|digest| needed.by(&digest).to_vec()).collect();
    names.sort();
    names.dedup();
    names
}
