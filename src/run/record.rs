//! The record of a run, `run.json`: enough to write a report and to repeat the run.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StageState;
use crate::backend::{DeviceChoice, DeviceClass};
use crate::base::lock::FileLock;
use crate::base::{Artefact, Digest, Interrupt, Manifest, StageId, clock, sealed};
use crate::cache::Entry;
use crate::config::Axis;
use crate::metric::Verdict;
use crate::plan::{Branch, Graph, ResolvedPipeline};

/// The format of `run.json`. History: 1, the first; 2, sealed.
pub const RECORD_FORMAT: u32 = 2;

/// A run, in `runs/NAME/run.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`RECORD_FORMAT`].
    pub format: u32,
    /// The pipeline's name.
    pub name: String,
    /// The version of this program.
    pub program: String,
    /// The pipeline file.
    #[serde(with = "crate::base::path_text")]
    pub file: PathBuf,
    /// Its text, with what `--set` changed.
    pub pipeline: String,
    /// Its stages and their references.
    pub graph: Graph,
    /// What it sweeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub axes: Vec<Axis>,
    /// The seed of all random numbers.
    pub seed: u64,
    /// Where it ran.
    pub device: DeviceRecord,
    /// When it began.
    pub started: String,
    /// When it ended; absent while it runs, and after it was killed.
    pub finished: Option<String>,
    /// How long it took.
    pub seconds: Option<f64>,
    /// How it ended, by the numbers of [`super::ExitCode`].
    pub exit_code: Option<u8>,
    /// The stages in the file's order, as in `graph`.
    pub stages: Vec<StageRecord>,
}

/// Where a run ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// What was asked for.
    pub asked: DeviceChoice,
    /// What that is here.
    pub class: DeviceClass,
}

/// One stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Its id.
    pub id: StageId,
    /// In a sweep, the values that reach it by the names of their axes.
    #[serde(default, skip_serializing_if = "Branch::is_empty")]
    pub branch: Branch,
    /// Its `use:` name.
    pub stage: String,
    /// That stage's version.
    pub version: u32,
    /// Its state.
    pub state: StageState,
    /// Its key, once its inputs had their artefacts.
    pub key: Option<Digest>,
    /// What its key is the hash of.
    pub manifest: Option<Manifest>,
    /// Its artefact, once it had one.
    pub artefact: Option<ArtefactRecord>,
    /// Why it failed, or which input it is missing.
    pub error: Option<String>,
    /// The exit code of that error, by the numbers of [`super::ExitCode`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Its gates, once it had its artefact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Verdict>,
}

/// A stage's artefact and how it was made, in this run or in an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArtefactRecord {
    /// Digest of its files.
    pub digest: Digest,
    /// Its folder in the cache.
    #[serde(with = "crate::base::path_text")]
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// How long it took to make.
    pub seconds: f64,
    /// Peak memory of the process while it was made, where the system says.
    pub peak_bytes: Option<u64>,
    /// When it was made.
    pub finished: String,
    /// The version of the program that made it.
    pub program: String,
    /// Keys of the intermediate artefacts that it was made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Digest>,
}

impl RunRecord {
    /// The record of a run that begins now.
    pub(super) fn new(pipeline: &ResolvedPipeline, device: DeviceRecord) -> Self {
        let stages = pipeline.stages.iter().map(|entry| StageRecord {
            id: entry.id.clone(),
            branch: entry.branch.clone(),
            stage: entry.stage.info().name.to_owned(),
            version: entry.stage.info().version,
            state: StageState::Waiting,
            key: None,
            manifest: None,
            artefact: None,
            error: None,
            exit_code: None,
            gates: Vec::new(),
        });
        Self {
            format: RECORD_FORMAT,
            name: pipeline.name.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            file: pipeline.path().to_owned(),
            pipeline: pipeline.text().to_owned(),
            graph: pipeline.graph.clone(),
            axes: pipeline.axes.clone(),
            seed: pipeline.seed,
            device,
            started: clock::now(),
            finished: None,
            seconds: None,
            exit_code: None,
            stages: stages.collect(),
        }
    }

    /// Reads the record of a run folder.
    pub fn read(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join("run.json");
        let named =
            |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        sealed::read(&path).map_err(named)
    }

    /// Changes the record of a run folder that several processes write.
    pub fn update(folder: &Path, change: impl FnOnce(&mut Self)) -> std::io::Result<()> {
        // An interrupted process says so here, and does not give up.
        let patient = Interrupt::default();
        let _lock = FileLock::acquire(&folder.join(".run.json.lock"), &patient, &mut |_| {})?;
        let mut record = Self::read(folder)?;
        change(&mut record);
        record.write(folder)
    }

    /// Writes the record of a run folder.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        sealed::write(&folder.join("run.json"), self)
    }

    /// The gates of all stages, each with its stage.
    pub fn gates(&self) -> impl Iterator<Item = (&StageRecord, &Verdict)> {
        self.stages.iter().flat_map(|stage| stage.gates.iter().map(move |verdict| (stage, verdict)))
    }

    /// The stage with this id.
    pub fn stage(&self, id: &str) -> Option<&StageRecord> {
        self.stages.iter().find(|stage| stage.id.as_str() == id)
    }

    /// How many stages are in a state.
    pub fn count(&self, state: StageState) -> usize {
        self.stages.iter().filter(|stage| stage.state == state).count()
    }
}

impl ArtefactRecord {
    /// The record of an artefact in the cache.
    pub(super) fn new(entry: &Entry, artefact: &Artefact) -> Self {
        let made = entry.made.clone();
        Self {
            digest: entry.digest,
            path: artefact.path.clone(),
            bytes: entry.files.bytes(),
            seconds: made.seconds,
            peak_bytes: made.peak_bytes,
            finished: made.finished,
            program: made.program,
            parts: entry.parts.clone(),
        }
    }
}
