//! `laptop-diff cache push` and `pull`: shares artefacts with other machines by the remote of the settings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode as ProcessExitCode;

use clap::Args;
use serde::Serialize;

use super::super::error::CliError;
use super::super::output::{note, print, print_json, table};
use super::super::run_folder::{self, GivenRun};
use super::key;
use super::options::CacheArguments;
use crate::base::{Digest, Interrupt, units};
use crate::cache::{Address, Pulled, Pushed, Store};
use crate::config::Settings;
use crate::run::{ExitCode, roots, signals};

/// Send artefacts to the remote, for other machines; without a name, all but the states of trainings
#[derive(Args)]
#[command(after_help = "\
A run sends what it makes by itself. This command sends what was made before there was a remote,
or while it was away. It may be interrupted at any time: the next one goes on with the files that
are missing there.

Examples:
  laptop-diff cache push
  laptop-diff cache push nano50              # all that a run needs
  laptop-diff cache push 1f3a8b22c09e        # one artefact, by its key from `laptop-diff cache ls`
  laptop-diff cache push --remote s3://lab/laptop-diff")]
pub(super) struct Push {
    #[command(flatten)]
    exchange: Exchange,
}

/// Fetch artefacts from the remote; without a name, all that it has
#[derive(Args)]
#[command(after_help = "\
A run fetches what it needs by itself. This command fetches before a machine goes offline, for
example. Every file is checked by its digest; an artefact that fails the check is refused, and the
exit code is 4.

Examples:
  laptop-diff cache pull
  laptop-diff cache pull runs/nano50         # all that a run needs, by its run.json
  laptop-diff cache pull 1f3a8b22c09e        # one artefact, by the first digits of its key")]
pub(super) struct Pull {
    #[command(flatten)]
    exchange: Exchange,
}

#[derive(Args)]
struct Exchange {
    /// Runs, by name or folder, or the first digits of keys
    #[arg(value_name = "RUN|KEY")]
    names: Vec<PathBuf>,
    /// The remote, instead of that of the settings
    #[arg(long, value_name = "ADDRESS")]
    remote: Option<Address>,
    #[command(flatten)]
    cache: CacheArguments,
}

/// What became of a key.
#[derive(Serialize)]
struct Row {
    key: Digest,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Done,
    AlreadyThere,
    Absent,
    Refused,
}

impl Push {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let (store, settings, stop) = self.exchange.open()?;
        let contents = store.contents()?;
        let here = contents.entries.iter().map(|kept| &kept.entry);
        let all = here.clone().filter(|entry| !entry.is_training_state()).map(|entry| entry.key).collect();
        let known: Vec<Digest> = here.map(|entry| entry.key).collect();
        let mut rows = Vec::new();
        for key in self.exchange.keys(&settings, all, &known)? {
            let (outcome, bytes) = match store.push(&key, &stop)? {
                Pushed::New { bytes } => (Outcome::Done, Some(bytes)),
                Pushed::There => (Outcome::AlreadyThere, None),
                Pushed::Absent => (Outcome::Absent, None),
            };
            rows.push(Row { key, outcome, bytes, reason: None });
        }
        self.exchange.tell(&rows, "sent", "not in this cache")
    }
}

impl Pull {
    pub(super) fn execute(self) -> Result<ProcessExitCode, CliError> {
        let (store, settings, stop) = self.exchange.open()?;
        // The remote is asked for its keys only where names do not say them.
        let is_run = |name: &PathBuf| run_folder::folder(name, &settings.runs).is_some();
        let named = !self.exchange.names.is_empty() && self.exchange.names.iter().all(is_run);
        let known = if named { Vec::new() } else { store.remote_keys(&stop)? };
        let mut rows = Vec::new();
        for key in self.exchange.keys(&settings, known.iter().copied().collect(), &known)? {
            let mut waiting =
                |holder: &str| note(&format!("waiting for {holder}, which is making {}", key.short()));
            let (outcome, bytes, reason) = match store.pull(&key, &stop, &mut waiting)? {
                Pulled::New { bytes } => (Outcome::Done, Some(bytes), None),
                Pulled::Here => (Outcome::AlreadyThere, None, None),
                Pulled::Absent => (Outcome::Absent, None, None),
                Pulled::Refused(reason) => (Outcome::Refused, None, Some(reason)),
            };
            rows.push(Row { key, outcome, bytes, reason });
        }
        store.save_digests();
        self.exchange.tell(&rows, "fetched", "not in the remote")?;
        let is_refused = rows.iter().any(|row| row.outcome == Outcome::Refused);
        Ok(if is_refused { ExitCode::File.into() } else { ExitCode::Done.into() })
    }
}

impl Exchange {
    fn open(&self) -> Result<(Store, Settings, std::sync::Arc<Interrupt>), CliError> {
        let (store, mut settings) = self.cache.open()?;
        settings.remote = self.remote.clone().or(settings.remote);
        let store = store.sharing(settings.shared()?);
        store.shared()?;
        Ok((store, settings, signals::listen()))
    }

    /// The keys that the names mean, or `all`. `known` are those that first digits are looked up in.
    fn keys(
        &self,
        settings: &Settings,
        all: BTreeSet<Digest>,
        known: &[Digest],
    ) -> Result<BTreeSet<Digest>, CliError> {
        if self.names.is_empty() {
            return Ok(all);
        }
        let mut keys = BTreeSet::new();
        for name in &self.names {
            keys.extend(meant(name, &settings.runs, known)?);
        }
        Ok(keys)
    }

    fn tell(&self, rows: &[Row], done: &str, absent: &str) -> Result<(), CliError> {
        if self.cache.json {
            return print_json(&rows);
        }
        let told = rows.iter().filter(|row| row.outcome != Outcome::AlreadyThere);
        let line = |row: &Row| {
            let text = match (row.outcome, &row.reason) {
                (Outcome::Refused, Some(reason)) => format!("refused: {reason}"),
                (Outcome::Absent, _) => absent.to_owned(),
                _ => done.to_owned(),
            };
            vec![row.key.short(), row.bytes.map_or_else(String::new, units::bytes), text]
        };
        let lines: Vec<_> = told.map(line).collect();
        let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count();
        let bytes = rows.iter().filter_map(|row| row.bytes).sum();
        let summary = format!(
            "{done} {} of {} artefacts, {}; {} were there already\n",
            count(Outcome::Done),
            rows.len(),
            units::bytes(bytes),
            count(Outcome::AlreadyThere)
        );
        print(&format!("{}{summary}", table(&lines, &[1])))
    }
}

/// The keys of a run, or the one that begins like this.
fn meant(given: &Path, runs: &Path, known: &[Digest]) -> Result<Vec<Digest>, CliError> {
    if run_folder::folder(given, runs).is_some() || !given.to_str().is_some_and(key::is_prefix) {
        return Ok(roots::keys(&GivenRun::find(given, runs)?.record));
    }
    Ok(vec![key::find(&given.to_string_lossy(), known.iter().copied())?])
}
