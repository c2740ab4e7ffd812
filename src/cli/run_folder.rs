//! The run that a command is given: the path of its folder, or its name in the runs folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::base::FileError;
use crate::run::RunRecord;

/// A run folder and its record.
pub(super) struct GivenRun {
    /// The folder, as the user would write it.
    pub(super) folder: PathBuf,
    pub(super) record: RunRecord,
}

impl GivenRun {
    /// Finds a run by what the user wrote; `runs` is the runs folder.
    pub(super) fn find(given: &Path, runs: &Path) -> Result<Self, CliError> {
        match folder(given, runs) {
            Some(folder) => {
                let record = RunRecord::read(&folder).map_err(FileError::at(&folder.join("run.json")))?;
                Ok(Self { folder, record })
            }
            None => {
                let (given, runs) = (given.to_owned(), runs.to_owned());
                Err(CliError::NoRun { known: names(&runs), given, runs })
            }
        }
    }
}

/// The folder of a run, if there is one of this path or name.
pub(super) fn folder(given: &Path, runs: &Path) -> Option<PathBuf> {
    [given.to_owned(), runs.join(given)].into_iter().find(|folder| folder.join("run.json").is_file())
}

fn names(runs: &Path) -> Vec<String> {
    let folders = fs::read_dir(runs).into_iter().flatten().flatten();
    let folders = folders.filter(|entry| entry.path().join("run.json").is_file());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
