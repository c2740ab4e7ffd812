//! The executor: walks the graph, runs what the cache lacks.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use candle_core::Device;

use super::attempt::{Ended, attempt};
use super::folder::RunFolder;
use super::intermediates::Intermediates;
use super::record::{ArtefactRecord, DeviceRecord};
use super::reporter::Reporter;
use super::{EVENT_FORMAT, Event, ExitCode, RunError, RunRecord, Sink, StageState};
use crate::backend::{DeviceChoice, DeviceClass, Random, memory};
use crate::base::{Artefact, Digest, Interrupt, Interrupted, Manifest, StageId, clock};
use crate::cache::{Begun, Entry, Lookup, Made, PendingArtefact, Store};
use crate::config::{Pipeline, StageEntry};
use crate::plan::{self, Graph};
use crate::stage::{Context, ResolvedFile};

/// What to run, and with what.
pub struct Job<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// Its graph.
    pub graph: &'a Graph,
    /// Where artefacts are.
    pub store: &'a Store,
    /// Where run folders are; this one gets the pipeline's name.
    pub runs: &'a Path,
    /// Where tensors live. It is opened when the first stage runs, not before.
    pub device: DeviceChoice,
    /// What to run of it.
    pub options: &'a Options,
    /// Who listens.
    pub sink: &'a dyn Sink,
    /// Whether to stop.
    pub interrupt: &'a Interrupt,
}

/// What to run of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only this stage and what it needs.
    pub until: Option<StageId>,
    /// Run these from nothing, even if their artefacts or checkpoints are there.
    pub force: BTreeSet<StageId>,
    /// After a failure, run what does not need the failed stage.
    pub keep_going: bool,
}

/// Runs a pipeline and gives its record; of a run that fails, the record lies in the run folder.
pub fn execute(job: &Job<'_>) -> Result<RunRecord, RunError> {
    let wanted = job.wanted()?;
    // All of them before anything runs: an hour of work should not end at a missing file.
    let files = wanted.iter().map(|&index| Ok((index, job.pipeline.files(index)?)));
    let files = files.collect::<Result<BTreeMap<_, _>, RunError>>()?;
    let folder = RunFolder::open(&job.runs.join(&job.pipeline.name))?;
    let device = DeviceRecord { asked: job.device, class: job.device.class() };
    let record = RunRecord::new(job.pipeline, job.graph, device);
    let (artefacts, made) = (BTreeMap::new(), Mutex::default());
    Executor { job, wanted, files, folder, record, device: OnceCell::new(), artefacts, made }.run()
}

impl Job<'_> {
    /// The stages to run, by index.
    fn wanted(&self) -> Result<BTreeSet<usize>, RunError> {
        for id in &self.options.force {
            self.named("--force", id)?;
        }
        match &self.options.until {
            Some(id) => {
                let stages = self.named("--until", id)?;
                Ok(stages.into_iter().flat_map(|index| self.graph.with_ancestors(index)).collect())
            }
            None => Ok(self.graph.order().iter().copied().collect()),
        }
    }

    fn is_forced(&self, entry: &StageEntry) -> bool {
        [&entry.id, &entry.origin].into_iter().any(|id| self.options.force.contains(id))
    }

    /// The stages that a flag names: one, or in a sweep all branches of one.
    fn named(&self, flag: &'static str, id: &StageId) -> Result<Vec<usize>, RunError> {
        let is_named = |entry: &StageEntry| entry.id == *id || entry.origin == *id;
        let stages: Vec<_> =
            (0..self.pipeline.stages.len()).filter(|&index| is_named(&self.pipeline.stages[index])).collect();
        if stages.is_empty() {
            let is_branch = id.as_str().contains('@');
            let known =
                self.pipeline.stages.iter().map(|entry| if is_branch { &entry.id } else { &entry.origin });
            let mut known: Vec<String> = known.map(StageId::to_string).collect();
            let mut seen = BTreeSet::new();
            known.retain(|name| seen.insert(name.clone()));
            return Err(RunError::UnknownStage { flag, found: id.clone(), known });
        }
        Ok(stages)
    }
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
    /// The keys of the parts that were made.
    made: Mutex<BTreeSet<Digest>>,
}

impl Executor<'_> {
    fn run(mut self) -> Result<RunRecord, RunError> {
        let begun = Instant::now();
        let (graph, options) = (self.job.graph, self.job.options);
        let order: Vec<_> =
            graph.order().iter().copied().filter(|index| self.wanted.contains(index)).collect();
        self.tell(&Event::RunStarted {
            format: EVENT_FORMAT,
            name: self.record.name.clone(),
            program: self.record.program.clone(),
            stages: order.iter().map(|&index| self.id(index)).collect(),
        });
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
            let stop = error.is_interruption() || !options.keep_going;
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
        let manifest = self.manifest(index)?;
        let key = manifest.key();
        let stage = &mut self.record.stages[index];
        (stage.key, stage.manifest) = (Some(key), Some(manifest.clone()));

        let force = job.is_forced(&job.pipeline.stages[index]);
        match job.store.lookup(&key)? {
            Lookup::Whole(entry) if !force => {
                return self.settle(index, StageState::Cached, &manifest, &entry);
            }
            Lookup::Damaged(damage) => self.tell(&Event::DamageFound {
                stage: id.clone(),
                path: damage.path,
                expected: damage.expected,
                found: damage.found,
            }),
            _ => {}
        }
        let mut waiting = |holder: &str| {
            self.tell(&Event::StageWaiting { stage: id.clone(), key, holder: holder.to_owned() })
        };
        match job.store.begin(&key, force, job.interrupt, &mut waiting)? {
            Begun::Cached(entry) => self.settle(index, StageState::Cached, &manifest, &entry),
            Begun::Pending(work) => {
                let entry = self.work(index, work, &manifest)?;
                self.settle(index, StageState::Done, &manifest, &entry)
            }
        }
    }

    /// What the stage's bytes depend on. Its inputs are there.
    fn manifest(&self, index: usize) -> Result<Manifest, RunError> {
        let contents = |(name, source): (&String, &ResolvedFile)| {
            let contents = source.contents(|path| {
                self.job.store.digest_of(path).map_err(|source| RunError::Input {
                    stage: self.id(index),
                    parameter: name.clone(),
                    path: path.to_owned(),
                    source,
                })
            })?;
            Ok((name.clone(), contents))
        };
        let files = self.files[&index].iter().map(contents).collect::<Result<BTreeMap<_, _>, RunError>>()?;
        let inputs = self.inputs(index).into_iter().map(|(name, artefact)| (name, artefact.digest)).collect();
        let entry = &self.job.pipeline.stages[index];
        Ok(plan::manifest(entry, self.record.device.class, &inputs, &files))
    }

    /// Runs the stage, and puts what it makes into the cache.
    fn work(
        &mut self,
        index: usize,
        work: PendingArtefact<'_>,
        manifest: &Manifest,
    ) -> Result<Entry, RunError> {
        let (job, id) = (self.job, self.id(index));
        let entry = &job.pipeline.stages[index];
        let device = self.open_device()?;
        self.record.stages[index].state.enter(StageState::Running);
        self.folder.write(&self.record)?;
        job.store.save_digests();
        let name = entry.stage.info().name.to_owned();
        self.tell(&Event::StageStarted {
            stage: id.clone(),
            name,
            key: manifest.key(),
            resumed: work.resumed(),
        });

        let tee = Tee(&self.folder, job.sink);
        let (files, reporter) = (&self.files[&index], Reporter::new(&id, &tee));
        let intermediates = Intermediates {
            store: job.store,
            kind: entry.stage.info().output,
            force: job.is_forced(entry),
            made: &self.made,
            progress: &reporter,
            interrupt: job.interrupt,
        };
        let context = Context {
            manifest,
            intermediates: &intermediates,
            inputs: &self.inputs(index),
            files,
            output: &work.output(),
            checkpoint: &work.checkpoint(),
            device: &device,
            random: Random::new(entry.seed, entry.origin.as_str()),
            progress: &reporter,
            interrupt: job.interrupt,
        };
        memory::reset_peak();
        let begun = Instant::now();
        attempt(entry.stage.as_ref(), &context).map_err(|ended| match ended {
            Ended::Panic(message) => RunError::Bug { stage: id.clone(), message },
            Ended::Error(source) => {
                let is_input = |path: &Path| {
                    files.values().filter_map(ResolvedFile::path).any(|file| path.starts_with(file))
                };
                RunError::Stage { stage: id.clone(), code: ExitCode::of_stage(&source, is_input), source }
            }
        })?;
        let made = Made {
            kind: entry.stage.info().output,
            seconds: begun.elapsed().as_secs_f64(),
            peak_bytes: memory::peak_bytes(),
            finished: clock::now(),
            program: self.record.program.clone(),
        };
        Ok(work.commit(manifest, made)?)
    }

    /// A stage has its artefact.
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
        self.job.store.remember(&self.record.name, &id, manifest);
        let (key, digest, seconds) = (entry.key, entry.digest, entry.made.seconds);
        if state == StageState::Cached {
            self.tell(&Event::StageCached { stage: id, key, digest, seconds });
            return Ok(());
        }
        let (bytes, peak_bytes) = (entry.files.bytes(), entry.made.peak_bytes);
        self.tell(&Event::StageDone { stage: id, key, digest, seconds, bytes, peak_bytes });
        self.folder.write(&self.record)
    }

    /// A stage has not come to its end, and takes with it what needs it.
    fn fail(&mut self, index: usize, error: &RunError) {
        let (id, state) = (self.id(index), &mut self.record.stages[index].state);
        if error.is_interruption() {
            if *state == StageState::Running {
                state.enter(StageState::Interrupted);
                self.tell(&Event::StageInterrupted { stage: id });
            }
            return;
        }
        // A run folder that cannot be written stops the run after a stage that is done.
        if state.has_artefact() {
            return;
        }
        state.enter(StageState::Failed);
        self.record.stages[index].error = Some(error.line());
        self.tell(&Event::StageFailed { stage: id.clone(), error: error.line() });
        for reader in self.job.graph.with_descendants(index) {
            let stage = &mut self.record.stages[reader];
            if stage.state == StageState::Waiting && self.wanted.contains(&reader) {
                stage.state.enter(StageState::Skipped);
                stage.error = Some(format!("it needs `{id}`, which failed"));
                let skipped = Event::StageSkipped { stage: stage.id.clone(), because: id.clone() };
                self.tell(&skipped);
            }
        }
    }

    fn finish(mut self, begun: Instant, mut errors: Vec<RunError>) -> Result<RunRecord, RunError> {
        if errors.iter().any(RunError::is_interruption) {
            errors = vec![Interrupted.into()];
        }
        let error = match errors.len() {
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
        let inputs = self.job.graph.inputs(index).into_iter();
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

    fn id(&self, index: usize) -> StageId {
        self.record.stages[index].id.clone()
    }

    fn tell(&self, event: &Event) {
        Tee(&self.folder, self.job.sink).event(event);
    }
}

/// The log, then whoever listens.
struct Tee<'a>(&'a RunFolder, &'a dyn Sink);

impl Sink for Tee<'_> {
    fn event(&self, event: &Event) {
        self.0.event(event);
        self.1.event(event);
    }
}
