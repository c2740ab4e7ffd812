//! The results of evaluations as event files for TensorBoard, beside the curves of trainings: one folder for each evaluation, and
//! in a sweep with the swept values, so that the page of hyperparameters has a row for each branch.
//!
//! A file depends on the artefact alone, so the same command later writes the same file again.

use std::fs;
use std::io;
use std::path::Path;

use super::numbers;
use crate::base::{ArtefactKind, files};
use crate::run::{ArtefactRecord, RunRecord, StageRecord};
use crate::train::watch::{TENSORBOARD, What, event};

/// What the names of these files end with; those of trainings do not.
const ENDING: &str = ".laptop-diff.results";

/// Writes the results of a run folder, as far as they are there.
pub fn results(folder: &Path) -> io::Result<()> {
    let record = match RunRecord::read(folder) {
        // The run ended before it began.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        record => record?,
    };
    for (stage, node) in record.stages.iter().zip(record.graph.stages()) {
        let Some(artefact) = stage.artefact.as_ref().filter(|_| node.output == ArtefactKind::Metrics) else {
            continue;
        };
        let numbers = numbers::of(stage, node.output, node.origin());
        let place = folder.join(TENSORBOARD).join(stage.id.as_str());
        fs::create_dir_all(&place)?;
        let name = format!("events.out.tfevents.{:010}{ENDING}", numbers::made(artefact) / 1000);
        for old in fs::read_dir(&place)?.flatten() {
            let other = old.file_name();
            if other.to_string_lossy().ends_with(ENDING) && other != name.as_str() {
                fs::remove_file(old.path())?;
            }
        }
        files::write_atomic(&place.join(name), &contents(stage, artefact, &numbers))?;
    }
    Ok(())
}

fn contents(stage: &StageRecord, artefact: &ArtefactRecord, numbers: &[(String, f64)]) -> Vec<u8> {
    let made = numbers::made(artefact) as f64 / 1000.0;
    let swept: Vec<(String, String)> = stage.branch.clone().into_iter().collect();
    let mut all = event(made, 0, &What::FileVersion);
    if !swept.is_empty() {
        all.extend(event(made, 0, &What::Parameters(&swept)));
    }
    all.extend(event(made, 0, &What::Numbers(numbers)));
    all
}
