//! Reads the contents of a run folder that a report shows.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::ReportError;
use super::training::Training;
use crate::base::ArtefactKind;
use crate::cache::{Damage, Place, Store};
use crate::distill::history::HISTORY_FILE;
use crate::metric::{MetricError, Metrics, Values};
use crate::prune::{Export, RECONSTRUCTION_FILE, Reconstruction};
use crate::run::{RunRecord, StageRecord, Stopped, Unfinished, in_run_folder};
use crate::score::Scores;
use crate::select::Selection;

/// A run, with the artefacts that a report shows.
pub(super) struct Folder {
    pub(super) record: RunRecord,
    pub(super) shown: Vec<(String, Shown)>,
    /// What is damaged: the user's path and what is wrong.
    pub(super) damaged: Vec<String>,
    /// The stage that is at work, or where the run stopped, if it is not over.
    pub(super) unfinished: Option<String>,
    /// The bytes that each set of pictures on the page may take.
    pub(super) room: usize,
}

/// The contents of an artefact that a report shows.
pub(super) enum Shown {
    Scores(Scores),
    Selection(Box<Selection>),
    Training(Box<Training>),
    Reconstruction(Reconstruction),
    Metrics(Box<Measured>),
    Export(Export),
    /// Damaged, or written by another version: why it cannot be shown.
    Unreadable(String),
}

/// An evaluation.
pub(super) struct Measured {
    pub(super) metrics: Metrics,
    pub(super) timings: Option<Metrics>,
    pub(super) values: Values,
    /// Why the times cannot be shown.
    timings_damage: Option<String>,
    folder: PathBuf,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, ReportError> {
        let no_run = |source: io::Error| match source.kind() {
            io::ErrorKind::InvalidData => ReportError::DamagedRecord { source },
            _ => ReportError::NoRun { path: path.to_owned(), source },
        };
        let record = RunRecord::read(path).map_err(no_run)?;
        let (mut shown, mut damaged, mut unfinished) = (Vec::new(), Vec::new(), None);
        for stage in &record.stages {
            let damage = damage(path, stage)?;
            let work = Unfinished::of(&record, stage)?;
            let one = match (&damage, &work) {
                (Some(damage), _) => Some(Shown::Unreadable(damage.clone())),
                (None, Some(work)) => show_unfinished(path, stage, work),
                (None, None) => show(path, stage).unwrap_or_else(|why| Some(Shown::Unreadable(why))),
            };
            if work.is_some_and(|work| work.running) {
                unfinished = Some(running(path, &record, stage));
            }
            if let Some(Shown::Metrics(measured)) = &one {
                damaged.extend(measured.timings_damage.clone());
            }
            damaged.extend(damage);
            shown.extend(one.map(|one| (stage.id.to_string(), one)));
        }
        Ok(Self { record, shown, damaged, unfinished, room: 0 })
    }

    /// How many of its stages may have drawn pictures.
    pub(super) fn pictured(&self) -> usize {
        let is_pictured = |shown: &Shown| matches!(shown, Shown::Metrics(_) | Shown::Training(_));
        self.shown.iter().filter(|(_, shown)| is_pictured(shown)).count()
    }

    /// The exports by their stages' ids.
    pub(super) fn exports(&self) -> Vec<(&str, &Export)> {
        let exports = self.shown.iter().filter_map(|(stage, shown)| match shown {
            Shown::Export(export) => Some((stage.as_str(), export)),
            _ => None,
        });
        exports.collect()
    }

    /// Every selection by its stage's id.
    pub(super) fn selections(&self) -> impl Iterator<Item = (&str, &Selection)> {
        self.shown.iter().filter_map(|(stage, shown)| match shown {
            Shown::Selection(selection) => Some((stage.as_str(), &**selection)),
            _ => None,
        })
    }

    /// The first selection, which the scores are shown with.
    pub(super) fn selection(&self) -> Option<&Selection> {
        self.selections().next().map(|(_, selection)| selection)
    }

    /// The scores that a selection was chosen by.
    pub(super) fn scores_of(&self, selection: &str) -> Option<&Scores> {
        let index = self.record.stages.iter().position(|stage| stage.id.as_str() == selection)?;
        match self.nearest(ArtefactKind::Scores, [index])? {
            Shown::Scores(scores) => Some(scores),
            _ => None,
        }
    }

    /// The selection that the models of an evaluation were pruned by, not one that the evaluation reads as an input.
    pub(super) fn selection_of(&self, evaluation: usize) -> Option<&Selection> {
        let models = self.record.graph.inputs(evaluation).into_iter();
        let models = models.map(|(_, from)| from);
        let models = models.filter(|&from| self.record.graph.stage(from).output == ArtefactKind::Model);
        match self.nearest(ArtefactKind::Selection, models)? {
            Shown::Selection(selection) => Some(selection),
            _ => None,
        }
    }

    /// The contents of the nearest stage that produces `kind`, among some stages and their inputs.
    fn nearest(&self, kind: ArtefactKind, from: impl IntoIterator<Item = usize>) -> Option<&Shown> {
        let graph = &self.record.graph;
        let (mut queue, mut seen) = (VecDeque::from_iter(from), BTreeSet::new());
        while let Some(index) = queue.pop_front() {
            if graph.stage(index).output == kind {
                return self.shown_of(graph.stage(index).id.as_str());
            }
            if seen.insert(index) {
                queue.extend(graph.inputs(index).into_iter().map(|(_, from)| from));
            }
        }
        None
    }

    /// The contents of a stage's artefact.
    pub(super) fn shown_of(&self, id: &str) -> Option<&Shown> {
        self.shown.iter().find(|(stage, _)| stage == id).map(|(_, shown)| shown)
    }
}

/// The kind of a stage's artefact.
fn kind(stage: &StageRecord) -> Option<ArtefactKind> {
    crate::stage::STAGES.iter().find(|info| info.name == stage.stage).map(|info| info.output)
}

/// What is wrong with the artefact of a stage that the report reads. `run` is the run folder.
fn damage(run: &Path, stage: &StageRecord) -> Result<Option<String>, ReportError> {
    let Some(artefact) = &stage.artefact else { return Ok(None) };
    let is_read = match kind(stage) {
        Some(ArtefactKind::Model) => {
            let is_there = |file: &str| artefact.path.join(file).exists();
            is_there(HISTORY_FILE) || is_there(RECONSTRUCTION_FILE) || !artefact.path.exists()
        }
        Some(
            ArtefactKind::Calibration | ArtefactKind::Latents | ArtefactKind::Texts | ArtefactKind::Profile,
        )
        | None => false,
        Some(_) => true,
    };
    let Some(place) = Place::of(&artefact.path).filter(|_| is_read) else { return Ok(None) };
    let damage = Store::open(&place.root)?.check(&artefact.digest)?;
    Ok(damage.map(|damage| {
        let path = in_run_folder(&damage.path, run, &stage.id);
        Damage { path, ..damage }.to_string()
    }))
}

/// What a training that is not finished has written so far.
fn show_unfinished(run: &Path, stage: &StageRecord, work: &Unfinished) -> Option<Shown> {
    let named = |error: io::Error| {
        let link = run.join(stage.id.as_str()).display().to_string();
        Shown::Unreadable(format!("{link}: {error}"))
    };
    match Training::open(&work.checkpoint, Some(work.running)) {
        Ok(training) => training.map(|training| Shown::Training(Box::new(training))),
        Err(error) => Some(named(error)),
    }
}

/// `This run is not over: retrained is running, 120 of 400 steps.`
fn running(run: &Path, record: &RunRecord, stage: &StageRecord) -> String {
    let id = stage.id.as_str();
    let stopped = Stopped::of(record, run, id).filter(|stopped| stopped.stage == stage.id);
    let done = stopped.and_then(|stopped| stopped.done);
    let done = done.map(|(done, total, unit)| format!(", {done} of {total} {unit}"));
    format!("This run is not over: `{id}` is running{}.", done.unwrap_or_default())
}

/// Reads the artefact of a stage, or says why it cannot be shown.
fn show(run: &Path, stage: &StageRecord) -> Result<Option<Shown>, String> {
    let Some(artefact) = &stage.artefact else { return Ok(None) };
    let folder = &artefact.path;
    let link = run.join(stage.id.as_str()).display().to_string();
    let named = |text: String| text.replace(&folder.display().to_string(), &link);
    let failed = |error: io::Error| match error.to_string() {
        text if text.contains(&folder.display().to_string()) => named(text),
        text => format!("{link}: {text}"),
    };
    Ok(match kind(stage) {
        Some(ArtefactKind::Scores) => Some(Shown::Scores(Scores::open(folder).map_err(failed)?)),
        Some(ArtefactKind::Selection) => {
            Some(Shown::Selection(Box::new(Selection::open(folder).map_err(failed)?)))
        }
        Some(ArtefactKind::Metrics) => {
            let measured = Measured::open(folder, named).map_err(|error| named(error.to_string()))?;
            Some(Shown::Metrics(Box::new(measured)))
        }
        Some(ArtefactKind::Model) => match Training::open(folder, None).map_err(failed)? {
            Some(training) => Some(Shown::Training(Box::new(training))),
            None if stage.stage == "reconstruct" => {
                Some(Shown::Reconstruction(Reconstruction::open(folder).map_err(failed)?))
            }
            None => None,
        },
        Some(ArtefactKind::Export) => Some(Shown::Export(Export::open(folder).map_err(failed)?)),
        Some(
            ArtefactKind::Calibration | ArtefactKind::Latents | ArtefactKind::Texts | ArtefactKind::Profile,
        )
        | None => None,
    })
}

impl Measured {
    /// `named` gives a text with the user's name of the folder.
    fn open(folder: &Path, named: impl Fn(String) -> String) -> Result<Self, MetricError> {
        let (timings, timings_damage) = match Metrics::open_timings(folder) {
            Ok(timings) => (timings, None),
            Err(error) => (None, Some(named(error.to_string()))),
        };
        Ok(Self {
            metrics: Metrics::open(folder)?,
            timings,
            values: Values::open(folder)?,
            timings_damage,
            folder: folder.to_owned(),
        })
    }

    /// The PNG of one prompt's picture, if it was drawn.
    pub(super) fn picture(&self, model: &str, index: usize) -> Option<Vec<u8>> {
        fs::read(crate::metric::picture_path(&self.folder.join("images").join(model), index)).ok()
    }
}
