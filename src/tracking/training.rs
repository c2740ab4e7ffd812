//! What a training wrote so far, from its checkpoint while it runs and from its artefact afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::log::Tail;
use super::mlflow::{Client, Picture, Run};
use crate::distill::HistoryLine;
use crate::distill::history::HISTORY_FILE;
use crate::distill::validation::{self, VALIDATION_FILE, ValidationLine};
use crate::run::{RunRecord, StageRecord, Unfinished};

/// A training of a stage.
pub(super) struct Training {
    /// The `id:` of its stage in the pipeline file.
    origin: String,
    /// Where it writes.
    folder: PathBuf,
    unfinished: bool,
}

/// How far the files of trainings were read, by the run of the server and their paths.
#[derive(Default)]
pub(super) struct Read(BTreeMap<(usize, PathBuf), Tail>);

impl Training {
    /// The training of a stage, if the stage is one and has begun.
    pub(super) fn of(record: &RunRecord, stage: &StageRecord, origin: &str) -> Option<Self> {
        if stage.stage != "distill" {
            return None;
        }
        let origin = origin.to_owned();
        if let Some(artefact) = &stage.artefact {
            return Some(Self { origin, folder: artefact.path.clone(), unfinished: false });
        }
        let work = Unfinished::of(record, stage).ok().flatten()?;
        Some(Self { origin, folder: work.checkpoint, unfinished: true })
    }

    fn tail(&self, subject: usize, file: &str, read: &Read) -> Tail {
        let path = self.folder.join(file);
        read.0.get(&(subject, path.clone())).cloned().unwrap_or_else(|| Tail::of(path))
    }

    /// Sends its curves and pictures as far as they are written. What could not be sent is read again.
    pub(super) fn tell(
        &self,
        subject: usize,
        (client, run): (&Client, &mut Run),
        read: &mut Read,
    ) -> Result<(), String> {
        self.lines(subject, HISTORY_FILE, (client, run), read, |line: HistoryLine| {
            (line.step, line.numbers())
        })?;
        self.lines(subject, VALIDATION_FILE, (client, run), read, |line: ValidationLine| {
            (line.step, line.numbers())
        })?;
        match run.no_files() {
            None => self.pictures(run).iter().try_for_each(|picture| run.picture(client, picture)),
            Some(_) => Ok(()),
        }
    }

    fn lines<T: DeserializeOwned>(
        &self,
        subject: usize,
        file: &str,
        (client, run): (&Client, &mut Run),
        read: &mut Read,
        numbers: impl Fn(T) -> (u64, Vec<(String, f64)>),
    ) -> Result<(), String> {
        let mut tail = self.tail(subject, file, read);
        loop {
            let (text, behind) = tail.next();
            if text.is_empty() {
                return Ok(());
            }
            let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            let all = lines.flat_map(|line| {
                let (step, numbers) = numbers(line);
                numbers.into_iter().map(move |(name, value)| (name, step, value))
            });
            run.curves(
                client,
                all.map(|(name, step, value)| (format!("{}/{name}", self.origin), step, value)),
            )?;
            read.0.insert((subject, tail.path().to_owned()), behind.clone());
            tail = behind;
        }
    }

    /// The pictures that the server does not have.
    fn pictures(&self, run: &Run) -> Vec<Picture> {
        let drawn = validation::drawn(&self.folder).unwrap_or_default().into_iter();
        let picture = drawn.map(|drawn| Picture {
            name: format!("{}/{}", self.origin, validation::picture_name(drawn.prompt)),
            step: drawn.step,
            path: drawn.path,
            unfinished: self.unfinished,
        });
        picture.filter(|picture| !run.has(&picture.name, picture.step)).collect()
    }
}
