//! One stage whose inputs have their artefacts, and all that it takes to obtain its own: in the process of the run, or in
//! one of its workers.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::Device;

use super::attempt::{Ended, attempt};
use super::inputs::{Inputs, Reader};
use super::intermediates::Intermediates;
use super::notices::tell;
use super::places::{Places, in_run_folder};
use super::reporter::Reporter;
use super::{Event, ExitCode, Job, RunError, Sink};
use crate::backend::{DeviceClass, Random};
use crate::base::{Artefact, Digest, Manifest, StageId};
use crate::cache::{Maker, Notice, Obtained, PendingArtefact, Request};
use crate::stage::{Context, ResolvedFile, Seat, StageError};

/// What the stages of one process have in common.
pub(super) struct Workshop<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) class: DeviceClass,
    device: OnceCell<Device>,
    /// The keys of the intermediate artefacts that this run made.
    pub(super) made: Mutex<BTreeSet<Digest>>,
}

/// One stage of a [`Workshop`].
pub(super) struct Work<'a> {
    pub(super) shop: &'a Workshop<'a>,
    pub(super) index: usize,
    /// The artefacts that it reads, by the names of its inputs.
    pub(super) artefacts: &'a BTreeMap<String, Artefact>,
    pub(super) files: &'a BTreeMap<String, ResolvedFile>,
    pub(super) manifest: &'a Manifest,
    /// The run folder.
    pub(super) folder: &'a Path,
    pub(super) sink: &'a dyn Sink,
    /// What is told when the stage has begun.
    pub(super) note: Option<&'a str>,
}

impl<'a> Workshop<'a> {
    pub(super) fn new(job: &'a Job<'a>) -> Self {
        Self { job, class: job.device.class(), device: OnceCell::new(), made: Mutex::default() }
    }

    /// What a stage reads.
    pub(super) fn reader<'r>(
        &'r self,
        index: usize,
        artefacts: &'r BTreeMap<String, Artefact>,
        files: &'r BTreeMap<String, ResolvedFile>,
    ) -> Reader<'r> {
        let Job { pipeline, store, .. } = *self.job;
        Reader { pipeline, index, class: self.class, store, artefacts, files }
    }

    /// The run folder as the user gave it.
    pub(super) fn run_folder(&self) -> PathBuf {
        self.job.runs.join(&self.job.pipeline.name)
    }

    /// The names of artefacts in the run folder.
    pub(super) fn places<'r>(&self, of: impl IntoIterator<Item = (usize, &'r Artefact)>) -> Places {
        let stages = &self.job.pipeline.stages;
        let named = of.into_iter().map(|(index, artefact)| (&stages[index].id, artefact));
        Places::new(&self.run_folder(), named)
    }

    fn open_device(&self) -> Result<Device, RunError> {
        if let Some(device) = self.device.get() {
            return Ok(device.clone());
        }
        let asked = self.job.opens();
        let open = || match asked.open()? {
            device if DeviceClass::of(&device) == asked.class() => Ok(device),
            _ => candle_core::bail!("the driver names a GPU, but it does not answer"),
        };
        let device = open().map_err(|source| RunError::Device { asked, source })?;
        Ok(self.device.get_or_init(|| device).clone())
    }
}

impl Work<'_> {
    /// Obtains the artefact; `started` is called if that takes running the stage, before it is told.
    pub(super) fn obtain(
        &self,
        started: &mut dyn FnMut() -> Result<(), RunError>,
    ) -> Result<Obtained, RunError> {
        let (job, planned) = (self.shop.job, &self.shop.job.pipeline.stages[self.index]);
        let request = Request {
            manifest: self.manifest,
            kind: planned.stage.info().output,
            force: job.is_forced(planned),
            interrupt: job.interrupt,
        };
        job.store.obtain(&request, &mut Attempt { work: self, started })
    }

    fn id(&self) -> &StageId {
        &self.shop.job.pipeline.stages[self.index].id
    }

    /// The names of its inputs in the run folder. Its own output keeps its path: an error there is about the cache's disk
    /// or permissions.
    fn places(&self) -> Places {
        let inputs = self.shop.job.pipeline.graph.inputs(self.index).into_iter();
        self.shop.places(inputs.map(|(name, from)| (from, &self.artefacts[name])))
    }

    fn failed(&self, source: StageError) -> RunError {
        let is_input = |path: &Path| {
            self.files.values().filter_map(ResolvedFile::path).any(|file| path.starts_with(file))
        };
        let code = ExitCode::of_stage(&source, is_input);
        RunError::Stage { stage: self.id().clone(), code, source: self.places().rename_error(source) }
    }

    /// Runs the stage.
    fn run(&self, pending: &PendingArtefact<'_>, device: &Device) -> Result<(), RunError> {
        let (job, id) = (self.shop.job, self.id());
        let planned = &job.pipeline.stages[self.index];
        let places = self.places();
        let reporter = Reporter::new(id, self.sink, &places);
        let inputs = Inputs::new(self.shop.reader(self.index, self.artefacts, self.files), self.manifest);
        let intermediates = Intermediates {
            store: job.store,
            stage: id,
            kind: planned.stage.info().output,
            force: job.is_forced(planned),
            made: &self.shop.made,
            sink: self.sink,
            interrupt: job.interrupt,
            pending,
            inputs: &inputs,
        };
        let context = Context {
            manifest: self.manifest,
            intermediates: &intermediates,
            inputs: self.artefacts,
            files: self.files,
            output: &pending.output(),
            checkpoint: &pending.checkpoint(),
            device,
            random: Random::new(planned.seed, planned.origin.as_str()),
            progress: &reporter,
            interrupt: job.interrupt,
            ranks: job.ranks,
            training: job.training,
            seat: Seat { run: &job.pipeline.name, folder: self.folder, stage: id },
        };
        let ended = attempt(planned.stage.as_ref(), &context).map_err(|ended| match ended {
            Ended::Panic(message) => RunError::Bug { stage: id.clone(), message },
            Ended::Error(source) => self.failed(source),
        });
        ended.and(inputs.check(pending).map_err(|source| self.failed(source)))
    }
}

/// Runs the stage when the cache lacks its artefact.
struct Attempt<'w> {
    work: &'w Work<'w>,
    started: &'w mut dyn FnMut() -> Result<(), RunError>,
}

impl Maker for Attempt<'_> {
    type Error = RunError;

    fn notice(&mut self, notice: Notice<'_>) {
        let Work { shop, sink, manifest, .. } = *self.work;
        let id = self.work.id();
        let name = |path: &Path| in_run_folder(path, &shop.run_folder(), id);
        tell(sink, id, manifest.key(), notice, &name);
    }

    fn make(&mut self, pending: &PendingArtefact<'_>) -> Result<(), RunError> {
        let work = self.work;
        let (job, id) = (work.shop.job, work.id().clone());
        let device = work.shop.open_device()?;
        (self.started)()?;
        job.store.save_digests();
        let name = job.pipeline.stages[work.index].stage.info().name.to_owned();
        work.sink.event(&Event::StageStarted { stage: id.clone(), name, key: work.manifest.key() });
        if let Some(note) = work.note {
            work.sink.event(&Event::StageNote { stage: id, text: note.to_owned() });
        }
        work.run(pending, &device)
    }
}
