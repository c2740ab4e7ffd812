//! What is known of a model that a command is given: the digest recorded for it, if it is the artefact of a run, and where
//! the run stopped, if it is not there yet.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::cache::{Damage, Place, Store};
use crate::run::{RunRecord, Stopped};

/// Fails if `path` lies in an artefact that is damaged, or in one that a run has not made. Other models have no recorded
/// digest.
pub(super) fn check(path: &Path) -> Result<(), CliError> {
    let Ok(real) = fs::canonicalize(path) else { return absent(path) };
    let Some(place) = Place::of(&real) else { return Ok(()) };
    match Store::open(&place.root)?.check(&place.digest)? {
        Some(damage) => Err(damaged(&damage, &users(path, &place), &real)),
        None => Ok(()),
    }
}

/// An artefact that is damaged; `folder` is its folder as the user knows it.
fn damaged(damage: &Damage, folder: &Path, real: &Path) -> CliError {
    let inside = Place::of(&damage.path).map(|place| place.inside).unwrap_or_default();
    let path = if inside.as_os_str().is_empty() { folder.to_owned() } else { folder.join(inside) };
    let help = again(if folder.exists() { folder } else { real });
    CliError::Damaged { damage: Damage { path, ..damage.clone() }, help }
}

/// The folder of the artefact that `path` lies in, by the names that the user gave.
fn users(path: &Path, place: &Place) -> PathBuf {
    let depth = place.inside.components().count();
    match path.ancestors().nth(depth) {
        Some(folder) if path.ends_with(&place.inside) => folder.to_owned(),
        _ => place.root.join("v1/artefacts").join(place.digest.to_string()),
    }
}

/// Whether a path that does not exist is that of a stage which has no artefact.
fn absent(path: &Path) -> Result<(), CliError> {
    for link in path.ancestors() {
        if let Ok(target) = fs::read_link(link)
            && !link.exists()
            && let Some(place) = Place::of(&target)
        {
            let damage = Damage { path: link.to_owned(), expected: Some(place.digest), found: None };
            return Err(CliError::Damaged { damage, help: again(link) });
        }
        let (Some(folder), Some(name)) = (link.parent(), link.file_name().and_then(|name| name.to_str()))
        else {
            continue;
        };
        let Ok(record) = RunRecord::read(folder) else { continue };
        if record.stage(name).is_some() {
            let stopped = match Stopped::of(&record, folder, name) {
                Some(stopped) => stopped.to_string(),
                None => format!("stage `{name}` has not run"),
            };
            let help = format!("`laptop-diff run {}` resumes the run", record.file.display());
            return Err(CliError::NotFinished { path: link.to_owned(), stopped, help });
        }
    }
    Ok(())
}

/// How to make a stage's artefact again; `path` is its link in a run folder.
fn again(path: &Path) -> String {
    let record = path.parent().and_then(|folder| RunRecord::read(folder).ok());
    match record {
        Some(record) => format!("`laptop-diff run {}` makes it again", record.file.display()),
        None => "run its pipeline again: damaged artefacts are made again".to_owned(),
    }
}
