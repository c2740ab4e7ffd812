//! What a run folder holds, read for showing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ReportError;
use crate::distill::HistoryLine;
use crate::distill::history::{self, HISTORY_FILE};
use crate::metric::{Metrics, Values};
use crate::prune::Export;
use crate::run::{RunRecord, StageRecord};
use crate::score::Scores;
use crate::select::Plan;
use crate::stage::ArtefactKind;

/// A run with the artefacts that have something to show.
pub(super) struct Folder {
    pub(super) record: RunRecord,
    pub(super) shown: Vec<(String, Shown)>,
}

/// An artefact that has something to show, under its stage's id.
pub(super) enum Shown {
    Scores(Scores),
    Plan(Box<Plan>),
    Losses(Vec<HistoryLine>),
    Metrics(Box<Measured>),
    Export(Export),
}

/// An evaluation.
pub(super) struct Measured {
    pub(super) metrics: Metrics,
    pub(super) timings: Option<Metrics>,
    pub(super) values: Values,
    folder: PathBuf,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, ReportError> {
        let no_run = |source| ReportError::NoRun { path: path.to_owned(), source };
        let record = RunRecord::read(path).map_err(no_run)?;
        let mut shown = Vec::new();
        for stage in &record.stages {
            if let Some(one) = show(stage)? {
                shown.push((stage.id.to_string(), one));
            }
        }
        Ok(Self { record, shown })
    }

    /// The exports by their stages' ids.
    pub(super) fn exports(&self) -> Vec<(&str, &Export)> {
        let exports = self.shown.iter().filter_map(|(stage, shown)| match shown {
            Shown::Export(export) => Some((stage.as_str(), export)),
            _ => None,
        });
        exports.collect()
    }

    /// The first scores, along which plans are shown.
    pub(super) fn scores(&self) -> Option<&Scores> {
        self.shown.iter().find_map(|(_, shown)| match shown {
            Shown::Scores(scores) => Some(scores),
            _ => None,
        })
    }

    /// Every plan by its stage's id.
    pub(super) fn plans(&self) -> Vec<(&str, &Plan)> {
        let plans = self.shown.iter().filter_map(|(stage, shown)| match shown {
            Shown::Plan(plan) => Some((stage.as_str(), &**plan)),
            _ => None,
        });
        plans.collect()
    }

    /// The first plan, which the scores are shown with.
    pub(super) fn plan(&self) -> Option<&Plan> {
        self.shown.iter().find_map(|(_, shown)| match shown {
            Shown::Plan(plan) => Some(&**plan),
            _ => None,
        })
    }
}

fn show(stage: &StageRecord) -> Result<Option<Shown>, ReportError> {
    let Some(artefact) = &stage.artefact else { return Ok(None) };
    let folder = &artefact.path;
    let failed = |source: io::Error| ReportError::Artefact { path: folder.clone(), source };
    let kind = crate::stage::STAGES.iter().find(|info| info.name == stage.stage).map(|info| info.output);
    Ok(match kind {
        Some(ArtefactKind::Scores) => Some(Shown::Scores(Scores::open(folder).map_err(failed)?)),
        Some(ArtefactKind::Plan) => Some(Shown::Plan(Box::new(Plan::open(folder).map_err(failed)?))),
        Some(ArtefactKind::Metrics) => Some(Shown::Metrics(Box::new(Measured::open(folder)?))),
        Some(ArtefactKind::Model) => match history::read(&folder.join(HISTORY_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            lines => Some(Shown::Losses(lines.map_err(failed)?)),
        },
        Some(ArtefactKind::Export) => Some(Shown::Export(Export::open(folder).map_err(failed)?)),
        Some(ArtefactKind::Calibration | ArtefactKind::Profile) | None => None,
    })
}

impl Measured {
    fn open(folder: &Path) -> Result<Self, ReportError> {
        Ok(Self {
            metrics: Metrics::open(folder)?,
            timings: Metrics::open_timings(folder)?,
            values: Values::open(folder)?,
            folder: folder.to_owned(),
        })
    }

    /// The PNG of one prompt's picture, if it was drawn.
    pub(super) fn picture(&self, model: &str, index: usize) -> Option<Vec<u8>> {
        fs::read(crate::metric::picture_path(&self.folder.join("images").join(model), index)).ok()
    }
}
