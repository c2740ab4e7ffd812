//! `laptop-diff clean`: removes run folders, and if asked the artefacts that nothing else needs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::output::{note, print, print_json, silent};
use super::run_folder::GivenRun;
use crate::base::{Digest, FileError, copies, units};
use crate::cache::{Limits, Place, Store};
use crate::config::Settings;
use crate::config::settings::Layer;
use crate::report;
use crate::run::{EVENTS, roots, signals};
use crate::slurm;

/// What a run writes into its folder beside links into the cache; the record goes last.
const FILES: [&str; 5] = [EVENTS, report::FILE, "tensorboard", slurm::FOLDER, "run.json"];

/// Remove run folders: records, reports and links; with --artefacts also what only they need in the cache
#[derive(Args)]
#[command(after_help = "\
A run that is running is refused. Files of your own in a run folder stay, and so does the folder then. The artefacts of the
run stay in the cache unless --artefacts is given or `laptop-diff cache gc` removes them; those that another run or a pin
needs stay in any case.

Examples:
  laptop-diff clean nano50
  laptop-diff clean runs/nano30 runs/nano50 --artefacts --dry-run")]
pub(super) struct Clean {
    /// Runs, by name or folder
    #[arg(value_name = "RUN", required = true)]
    run: Vec<PathBuf>,
    /// Also remove the artefacts and checkpoints that no other run and no pin needs
    #[arg(long)]
    artefacts: bool,
    /// Show what would be removed and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Folder of the artefact cache
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Folder of run folders
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Cleaned {
    dry_run: bool,
    runs: Vec<PathBuf>,
    /// What was removed from the cache; without --artefacts, what nobody needs any more.
    artefacts: usize,
    bytes: u64,
    artefacts_removed: bool,
}

impl Clean {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let layer = Layer { cache: self.cache.clone(), runs: self.runs.clone(), ..Layer::default() };
        let settings = Settings::load(layer, &mut |text| note(text))?;
        let interrupt = signals::listen();
        let runs = self.run.iter().map(|given| GivenRun::find(given, &settings.runs));
        let runs: Vec<GivenRun> = runs.collect::<Result<_, _>>()?;
        let store = Store::open(&runs.iter().find_map(cache_of).unwrap_or(settings.cache))?;
        store.forget_the_silent(&interrupt, &mut |holder| note(&silent(holder)))?;
        let mut folders = Vec::new();
        for run in &runs {
            let folder = fs::canonicalize(&run.folder).map_err(FileError::at(&run.folder))?;
            let has_jobs = slurm::jobs(&folder)?.iter().any(|job| job.live);
            if has_jobs || store.is_worked_on(&folder)? {
                return Err(CliError::RunIsRunning { folder: run.folder.clone() });
            }
            folders.push(folder);
        }
        let only: BTreeSet<Digest> = runs.iter().flat_map(digests).collect();
        let limits = Limits { all: true, only: Some(only), ..Limits::default() };
        let needed = roots::needed_without(&store, &settings.runs, &folders)?;
        let collection = store.collection(&limits, &needed)?;
        let mut gone = collection.candidates.clone();
        if !self.dry_run {
            runs.iter().try_for_each(|run| remove(&run.folder, store.root()))?;
            if self.artefacts {
                gone = store.collect(&collection, &interrupt)?.removed;
            }
            roots::forget_gone(&store)?;
        }
        let cleaned = Cleaned {
            dry_run: self.dry_run,
            runs: runs.into_iter().map(|run| run.folder).collect(),
            artefacts: gone.len(),
            bytes: gone.iter().map(|one| one.bytes).sum(),
            artefacts_removed: self.artefacts,
        };
        if self.json { print_json(&cleaned) } else { print(&cleaned.shown()) }
    }
}

impl Cleaned {
    fn shown(&self) -> String {
        let (removed, freed) =
            if self.dry_run { ("would remove", "would free") } else { ("removed", "freed") };
        let mut text: String = self.runs.iter().map(|run| format!("{removed} {}\n", run.display())).collect();
        let (bytes, count) = (units::bytes(self.bytes), self.artefacts);
        let things = if count == 1 { "artefact" } else { "artefacts" };
        match count {
            0 => {}
            _ if self.artefacts_removed => text.push_str(&format!("{freed} {bytes} in {count} {things}\n")),
            _ => text.push_str(&format!(
                "{count} {things} of {bytes} that nothing else needs stay in the cache: --artefacts or \
                 `laptop-diff cache gc --all` removes them\n"
            )),
        }
        text
    }
}

/// The cache that a run's artefacts are in.
fn cache_of(run: &GivenRun) -> Option<PathBuf> {
    let artefacts = run.record.stages.iter().filter_map(|stage| stage.artefact.as_ref());
    artefacts.filter_map(|artefact| Place::of(&artefact.path)).map(|place| place.root).next()
}

/// The keys and digests of a run.
fn digests(run: &GivenRun) -> Vec<Digest> {
    let artefacts = run.record.stages.iter().filter_map(|stage| stage.artefact.as_ref());
    roots::keys(&run.record).into_iter().chain(artefacts.map(|artefact| artefact.digest)).collect()
}

/// Removes what a run wrote; the folder too, unless it has other files.
fn remove(folder: &Path, cache: &Path) -> Result<(), CliError> {
    for entry in fs::read_dir(folder).map_err(FileError::at(folder))?.flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(cache)) {
            fs::remove_file(entry.path()).map_err(FileError::at(&entry.path()))?;
        }
    }
    for name in FILES {
        let path = folder.join(name);
        copies::remove(&path).map_err(FileError::at(&path))?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            note(&format!("{} has other files and stays", folder.display()));
            Ok(())
        }
        removed => Ok(removed.map_err(FileError::at(folder))?),
    }
}
