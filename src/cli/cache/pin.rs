//! `laptop-diff cache pin` and `unpin`: artefacts that stay although no run folder needs them.

use std::path::{Path, PathBuf};

use clap::Args;

use super::super::error::CliError;
use super::super::output::{note, print, print_json, table};
use super::super::run_folder::{self, GivenRun};
use super::key;
use super::options::CacheArguments;
use crate::base::Digest;
use crate::cache::{Contents, Root, RootKind, Store};
use crate::run::roots;

/// Keep artefacts even if their run folder is removed; without a name, list what is pinned
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff cache pin nano50               # all that the run needs as it is now
  laptop-diff cache pin 1f3a8b22c09e         # one artefact, by its key from `laptop-diff cache ls`
  laptop-diff cache pin                      # what is pinned")]
pub(super) struct Pin {
    /// Runs, by name or folder, or the first digits of keys
    #[arg(value_name = "RUN|KEY")]
    names: Vec<PathBuf>,
    #[command(flatten)]
    cache: CacheArguments,
}

/// Take pins away: `cache gc` may then remove what no run needs
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff cache unpin nano50
  laptop-diff cache unpin 1f3a8b22c09e")]
pub(super) struct Unpin {
    /// What was pinned
    #[arg(value_name = "RUN|KEY", required = true)]
    names: Vec<PathBuf>,
    #[command(flatten)]
    cache: CacheArguments,
}

impl Pin {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let (store, settings) = self.cache.open()?;
        if self.names.is_empty() {
            return self.list(&store);
        }
        let contents = store.contents()?;
        let mut added = Vec::new();
        for name in &self.names {
            added.push(pin(name, &settings.runs, &contents)?);
        }
        added.iter().try_for_each(|root| store.add_root(root))?;
        if self.cache.json {
            return print_json(&added);
        }
        let lines = added.iter().map(|root| format!("pinned {}: {}\n", root.name.display(), kept(root)));
        print(&lines.collect::<String>())
    }

    fn list(&self, store: &Store) -> Result<(), CliError> {
        let pins = pins(store)?;
        if self.cache.json {
            return print_json(&pins);
        }
        if pins.is_empty() {
            note(&format!("nothing is pinned in {}", store.root().display()));
            return Ok(());
        }
        let row = |root: &Root| vec![root.name.display().to_string(), kept(root), root.since.clone()];
        let head = ["pin", "keeps", "since"].map(str::to_owned).to_vec();
        let rows: Vec<_> = [head].into_iter().chain(pins.iter().map(row)).collect();
        print(&table(&rows, &[]))
    }
}

impl Unpin {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let (store, _) = self.cache.open()?;
        let pins = pins(&store)?;
        let mut found = Vec::new();
        for given in &self.names {
            let mut fitting = pins.iter().filter(|root| is_meant(root, given));
            match (fitting.next(), fitting.next()) {
                (Some(root), None) => found.push(root.clone()),
                (first, _) => {
                    let known = pins.iter().map(|root| root.name.display().to_string()).collect();
                    let (given, several) = (given.display().to_string(), first.is_some());
                    return Err(CliError::NoPin { given, several, known });
                }
            }
        }
        for root in &found {
            store.remove_root(root.kind, &root.name)?;
        }
        if self.cache.json {
            return print_json(&found);
        }
        print(&found.iter().map(|root| format!("unpinned {}\n", root.name.display())).collect::<String>())
    }
}

/// The pin of a run as it is now, or of one key.
fn pin(given: &Path, runs: &Path, contents: &Contents) -> Result<Root, CliError> {
    if run_folder::folder(given, runs).is_some() || !given.to_str().is_some_and(key::is_prefix) {
        let run = GivenRun::find(given, runs)?;
        let folder = std::fs::canonicalize(&run.folder).unwrap_or(run.folder);
        return Ok(Root::new(RootKind::Pin, &folder, roots::keys(&run.record)));
    }
    let key = key::find(&given.to_string_lossy(), contents.entries.iter().map(|kept| kept.entry.key))?;
    Ok(Root::new(RootKind::Pin, Path::new(&key.to_string()), vec![key]))
}

fn pins(store: &Store) -> Result<Vec<Root>, CliError> {
    let mut pins: Vec<Root> = store.roots()?.into_iter().filter(|root| root.kind == RootKind::Pin).collect();
    pins.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(pins)
}

/// Whether a user means this pin: by its path, by the name of its run, or by the first digits of its key.
fn is_meant(root: &Root, given: &Path) -> bool {
    let is_key = |name: &str| name.parse::<Digest>().is_ok();
    let begins = || match (root.name.to_str(), given.to_str()) {
        (Some(name), Some(given)) => is_key(name) && key::is_prefix(given) && name.starts_with(given),
        _ => false,
    };
    root.name == given
        || std::path::absolute(given).is_ok_and(|given| given == root.name)
        || root.name.file_name() == Some(given.as_os_str())
        || begins()
}

fn kept(root: &Root) -> String {
    format!("{} {}", root.keys.len(), if root.keys.len() == 1 { "key" } else { "keys" })
}
