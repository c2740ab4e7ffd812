//! The executor: walks the graph and runs the stages whose artefacts the cache lacks.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use candle_core::Device;

use super::attempt::{Ended, attempt};
use super::folder::RunFolder;
use super::inputs::{Inputs, Reader};
use super::intermediates::Intermediates;
use super::notices::tell;
use super::places::{Places, in_run_folder};
use super::record::{ArtefactRecord, DeviceRecord};
use super::reporter::Reporter;
use super::roots;
use super::{EVENT_FORMAT, Event, ExitCode, Job, RunError, RunRecord, Sink, StageState};
use crate::backend::{DeviceClass, Random};
use crate::base::{Artefact, Digest, Interrupted, Manifest, StageId, clock};
use crate::cache::{Entry, Maker, Notice, Obtained, PendingArtefact, Request};
use crate::plan::PlanError;
use crate::stage::{Context, ResolvedFile, Seat};

/// Runs a pipeline and returns its record. The record of a failed run is in the run folder.
pub fn execute(job: &Job<'_>) -> Result<RunRecord, RunError> {
    let wanted = job.options.wanted(job.pipeline)?;
    // All files are checked before anything runs, so that an hour of work does not end at a missing or wrong file.
    let files = wanted.iter().map(|&index| Ok((index, job.pipeline.files(index).map_err(PlanError::from)?)));
    let files = files.collect::<Result<BTreeMap<_, _>, RunError>>()?;
    job.pipeline.check_there(&files)?;
    job.pipeline.check_files(&files)?;
    let folder = RunFolder::open(&job.runs.join(&job.pipeline.name))?;
    let device = DeviceRecord { asked: job.device, class: job.device.class() };
    let record = RunRecord::new(job.pipeline, device);
    let (artefacts, made) = (BTreeMap::new(), Mutex::default());
    Executor { job, wanted, files, folder, record, device: OnceCell::new(), artefacts, made }.run()
}

struct Executor<'a> {
    job: &'a Job<'a>,
    wanted: BTreeSet<usize>,
    files: BTreeMap<usize, BTreeMap<String, ResolvedFile>>,
    folder: RunFolder,
    record: RunRecord,
    device: OnceCell<Device>,
    /// Of the stages that are cached or done.
    artefacts: BTreeMap<usize, Artefact>,
    /// The keys of the intermediate artefacts that this run made.
    made: Mutex<BTreeSet<Digest>>,
}

impl Executor<'_> {
    fn run(mut self) -> Result<RunRecord, RunError> {
        let begun = Instant::now();
        let (graph, options) = (&self.job.pipeline.graph, self.job.options);
        let order: Vec<_> =
            graph.order().iter().copied().filter(|index| self.wanted.contains(index)).collect();
        self.tell(&Event::RunStarted {
            format: EVENT_FORMAT,
            name: self.record.name.clone(),
            program: self.record.program.clone(),
            stages: order.iter().map(|&index| self.id(index)).collect(),
        });
        roots::begin(self.job.store, self.folder.path());
        let mut errors = Vec::new();
        for index in order {
            if self.record.stages[index].state == StageState::Skipped {
                continue;
            }
            let ended = match self.job.interrupt.check() {
                Ok(()) => self.stage(index),
                Err(interrupted) => Err(interrupted.into()),
            };
            let Err(error) = ended else { continue };
            let stop = is_interruption(&error) || !options.keep_going;
            self.fail(index, &error);
            errors.push(error);
            if stop {
                break;
            }
        }
        self.job.store.save_digests();
        self.finish(begun, errors)
    }

    /// Takes a stage from waiting to cached or done.
    fn stage(&mut self, index: usize) -> Result<(), RunError> {
        let (job, id) = (self.job, self.id(index));
        for pinned in self.files[&index].values().filter_map(ResolvedFile::repository) {
            self.tell(&Event::StagePinned { stage: id.clone(), repository: pinned.clone() });
        }
        let manifest = self.reader(index, &self.inputs(index)).manifest()?;
        let planned = &job.pipeline.stages[index];
        let stage = &mut self.record.stages[index];
        (stage.key, stage.manifest) = (Some(manifest.key()), Some(manifest.clone()));
        let request = Request {
            manifest: &manifest,
            kind: planned.stage.info().output,
            force: job.is_forced(planned),
            interrupt: job.interrupt,
        };
        let mut attempt = StageAttempt { executor: self, index, manifest: &manifest };
        let (state, entry) = match job.store.obtain(&request, &mut attempt)? {
            Obtained::Cached(entry) => (StageState::Cached, entry),
            Obtained::Made(entry) => (StageState::Done, entry),
        };
        self.settle(index, state, &manifest, &entry)
    }

    /// A stage whose inputs have their artefacts.
    fn reader<'r>(&'r self, index: usize, artefacts: &'r BTreeMap<String, Artefact>) -> Reader<'r> {
        let Job { pipeline, store, .. } = *self.job;
        Reader {
            pipeline,
            index,
            class: self.record.device.class,
            store,
            artefacts,
            files: &self.files[&index],
        }
    }

    /// Records that a stage has its artefact.
    fn settle(
        &mut self,
        index: usize,
        state: StageState,
        manifest: &Manifest,
        entry: &Entry,
    ) -> Result<(), RunError> {
        let artefact = self.job.store.artefact(entry);
        let stage = &mut self.record.stages[index];
        stage.state.enter(state);
        stage.artefact = Some(ArtefactRecord::new(entry, &artefact));
        let id = stage.id.clone();
        self.artefacts.insert(index, artefact);
        let folders = || self.job.pipeline.trees(index, &self.files[&index], self.job.store);
        self.job.store.remember(&self.record.name, &id, manifest, folders);
        let (key, digest, seconds) = (entry.key, entry.digest, entry.made.seconds);
        if state == StageState::Cached {
            self.tell(&Event::StageCached { stage: id, key, digest, seconds });
            return self.compare(index);
        }
        let (bytes, peak_bytes) = (entry.files.bytes(), entry.made.peak_bytes);
        self.tell(&Event::StageDone { stage: id, key, digest, seconds, bytes, peak_bytes });
        self.compare(index)?;
        self.folder.write(&self.record)
    }

    /// Compares the gates of a stage with its artefact.
    fn compare(&mut self, index: usize) -> Result<(), RunError> {
        let id = self.id(index);
        let compared = self.job.pipeline.stages[index].stage.verdicts(&self.artefacts[&index].path);
        let verdicts = compared.map_err(|source| {
            let code = ExitCode::of_stage(&source, |_| false);
            RunError::Stage { stage: id.clone(), code, source: self.places(index).rename_error(source) }
        })?;
        for verdict in &verdicts {
            self.tell(&Event::GateCompared { stage: id.clone(), verdict: verdict.clone() });
        }
        self.record.stages[index].gates = verdicts;
        Ok(())
    }

    /// Records that a stage failed, and skips the stages that need it.
    fn fail(&mut self, index: usize, error: &RunError) {
        let (id, state) = (self.id(index), &mut self.record.stages[index].state);
        if is_interruption(error) {
            if *state == StageState::Running {
                state.enter(StageState::Interrupted);
                self.tell(&Event::StageInterrupted { stage: id });
            }
            return;
        }
        // The stage is done; only writing the run folder failed.
        if state.has_artefact() {
            return;
        }
        state.enter(StageState::Failed);
        self.record.stages[index].error = Some(error.line());
        self.tell(&Event::StageFailed { stage: id.clone(), error: error.line() });
        for reader in self.job.pipeline.graph.with_descendants(index) {
            let stage = &mut self.record.stages[reader];
            if stage.state == StageState::Waiting && self.wanted.contains(&reader) {
                stage.state.enter(StageState::Skipped);
                stage.error = Some(format!("needs `{id}`, which failed"));
                let skipped = Event::StageSkipped { stage: stage.id.clone(), because: id.clone() };
                self.tell(&skipped);
            }
        }
    }

    fn finish(mut self, begun: Instant, mut errors: Vec<RunError>) -> Result<RunRecord, RunError> {
        if errors.iter().any(is_interruption) {
            errors = vec![Interrupted.into()];
        }
        let missed = self.record.gates().filter(|(_, verdict)| !verdict.met);
        let missed: Vec<String> = missed.map(|(_, verdict)| verdict.in_words()).collect();
        let error = match errors.len() {
            0 if !missed.is_empty() => Some(RunError::Gates { missed }),
            0 | 1 => errors.pop(),
            _ => Some(RunError::Several { errors }),
        };
        let code = error.as_ref().map_or(ExitCode::Done, RunError::exit_code).number();
        let seconds = begun.elapsed().as_secs_f64();
        self.record.finished = Some(clock::now());
        self.record.seconds = Some(seconds);
        self.record.exit_code = Some(code);
        let linked = self.folder.link(&self.record, self.job.store.root());
        let written = self.folder.write(&self.record);
        roots::end(self.job.store, self.folder.path(), &self.record);
        self.tell(&Event::RunDone {
            code,
            seconds,
            ran: self.record.count(StageState::Done),
            cached: self.record.count(StageState::Cached),
            failed: self.record.count(StageState::Failed),
            skipped: self.record.count(StageState::Skipped),
            folder: self.folder.path().to_owned(),
        });
        match error {
            Some(error) => Err(error),
            None => linked.and(written).map(|()| self.record),
        }
    }

    /// The artefacts that a stage reads, by the names of its inputs.
    fn inputs(&self, index: usize) -> BTreeMap<String, Artefact> {
        let inputs = self.job.pipeline.graph.inputs(index).into_iter();
        inputs.map(|(name, from)| (name.to_owned(), self.artefacts[&from].clone())).collect()
    }

    fn open_device(&self) -> Result<Device, RunError> {
        if let Some(device) = self.device.get() {
            return Ok(device.clone());
        }
        let (asked, class) = (self.job.device, self.record.device.class);
        let open = || match asked.open()? {
            device if DeviceClass::of(&device) == class => Ok(device),
            _ => candle_core::bail!("the driver names a GPU, but it does not answer"),
        };
        let device = open().map_err(|source| RunError::Device { asked, source })?;
        Ok(self.device.get_or_init(|| device).clone())
    }

    /// The run folder as the user gave it.
    fn run_folder(&self) -> PathBuf {
        self.job.runs.join(&self.job.pipeline.name)
    }

    /// The names of a stage's inputs in the run folder. Its own output keeps its path: an error there is about the cache's
    /// disk or permissions.
    fn places(&self, index: usize) -> Places {
        let inputs = self.job.pipeline.graph.inputs(index).into_iter();
        let inputs = inputs.map(|(_, from)| (&self.record.stages[from].id, &self.artefacts[&from]));
        Places::new(&self.run_folder(), inputs)
    }

    fn id(&self, index: usize) -> StageId {
        self.record.stages[index].id.clone()
    }

    fn tell(&self, event: &Event) {
        Tee(&self.folder, self.job.sink).event(event);
    }
}

/// Runs one stage when the cache lacks its artefact.
struct StageAttempt<'e, 'a> {
    executor: &'e mut Executor<'a>,
    index: usize,
    manifest: &'e Manifest,
}

impl Maker for StageAttempt<'_, '_> {
    type Error = RunError;

    fn notice(&mut self, notice: Notice<'_>) {
        let executor = &self.executor;
        let (sink, id) = (Tee(&executor.folder, executor.job.sink), executor.id(self.index));
        let name = |path: &Path| in_run_folder(path, &executor.run_folder(), &id);
        tell(&sink, &id, self.manifest.key(), notice, &name);
    }

    fn make(&mut self, pending: &PendingArtefact<'_>) -> Result<(), RunError> {
        let Self { executor, index, manifest } = self;
        let (job, id) = (executor.job, executor.id(*index));
        let planned = &job.pipeline.stages[*index];
        let info = planned.stage.info();
        let device = executor.open_device()?;
        executor.record.stages[*index].state.enter(StageState::Running);
        executor.folder.write(&executor.record)?;
        job.store.save_digests();
        let (name, key) = (info.name.to_owned(), manifest.key());
        executor.tell(&Event::StageStarted { stage: id.clone(), name, key });

        let tee = Tee(&executor.folder, job.sink);
        let places = executor.places(*index);
        let (files, reporter) = (&executor.files[index], Reporter::new(&id, &tee, &places));
        let artefacts = executor.inputs(*index);
        let failed = |source| {
            let is_input = |path: &Path| {
                files.values().filter_map(ResolvedFile::path).any(|file| path.starts_with(file))
            };
            let code = ExitCode::of_stage(&source, is_input);
            let source = places.rename_error(source);
            RunError::Stage { stage: id.clone(), code, source }
        };
        let inputs = Inputs::new(executor.reader(*index, &artefacts), manifest);
        let intermediates = Intermediates {
            store: job.store,
            stage: &id,
            kind: info.output,
            force: job.is_forced(planned),
            made: &executor.made,
            sink: &tee,
            interrupt: job.interrupt,
            pending,
            inputs: &inputs,
        };
        let context = Context {
            manifest,
            intermediates: &intermediates,
            inputs: &artefacts,
            files,
            output: &pending.output(),
            checkpoint: &pending.checkpoint(),
            device: &device,
            random: Random::new(planned.seed, planned.origin.as_str()),
            progress: &reporter,
            interrupt: job.interrupt,
            ranks: job.ranks,
            training: job.training,
            seat: Seat { run: &executor.record.name, folder: executor.folder.path(), stage: &id },
        };
        let ended = attempt(planned.stage.as_ref(), &context).map_err(|ended| match ended {
            Ended::Panic(message) => RunError::Bug { stage: id.clone(), message },
            Ended::Error(source) => failed(source),
        });
        ended.and(inputs.check(pending).map_err(failed))
    }
}

/// Whether the run was asked to stop, wherever that was noticed.
fn is_interruption(error: &RunError) -> bool {
    error.exit_code() == ExitCode::Interrupted
}

/// Sends events to the log, then to the sink of the job.
struct Tee<'a>(&'a RunFolder, &'a dyn Sink);

impl Sink for Tee<'_> {
    fn event(&self, event: &Event) {
        self.0.event(event);
        self.1.event(event);
    }
}
