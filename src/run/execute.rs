//! The executor: walks the graph and obtains the stages whose artefacts the cache lacks, here or in workers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use super::folder::RunFolder;
use super::record::{ArtefactRecord, DeviceRecord};
use super::roots;
use super::schedule::{Piece, Schedule};
use super::side_by_side::SideBySide;
use super::work::{Work, Workshop};
use super::{EVENT_FORMAT, EVENTS, Event, ExitCode, Job, Part, RunError, RunRecord, Share, Sink, StageState};
use crate::backend::memory;
use crate::base::{Artefact, Interrupted, Manifest, StageId, clock};
use crate::cache::{Entry, Lookup, Obtained};
use crate::plan::PlanError;
use crate::stage::ResolvedFile;

/// Runs a pipeline and returns its record. The record of a failed run is in the run folder.
pub fn execute(job: &Job<'_>) -> Result<RunRecord, RunError> {
    begin(job, &Workshop::new(job), Executor::run)
}

/// The record of a run before it begins, with the artefacts that are in the cache. Writes none of it.
pub fn survey(job: &Job<'_>) -> Result<RunRecord, RunError> {
    begin(job, &Workshop::new(job), |mut executor| {
        while let Some(index) = executor.schedule.next_ready() {
            executor.look_up(index)?;
        }
        executor.job.store.save_digests();
        Ok(executor.record)
    })
}

fn begin<'a>(
    job: &'a Job<'a>,
    shop: &'a Workshop<'a>,
    go: impl FnOnce(Executor<'a>) -> Result<RunRecord, RunError>,
) -> Result<RunRecord, RunError> {
    let wanted = job.share.of(job.options.wanted(job.pipeline)?, &job.pipeline.graph);
    // All files are checked before anything runs, so that an hour of work does not end at a missing or wrong file.
    let files = wanted.iter().map(|&index| Ok((index, job.pipeline.files(index).map_err(PlanError::from)?)));
    let files = files.collect::<Result<BTreeMap<_, _>, RunError>>()?;
    job.pipeline.check_there(&files)?;
    job.pipeline.check_files(&files)?;
    let folder = folder(job)?;
    let device = DeviceRecord { asked: job.device, class: shop.class };
    let executor = Executor {
        job,
        shop,
        schedule: Schedule::new(&job.pipeline.graph, &wanted),
        side_by_side: SideBySide::of(job),
        wanted,
        files,
        folder,
        record: RunRecord::new(job.pipeline, device),
        artefacts: BTreeMap::new(),
        errors: BTreeMap::new(),
        stopped: false,
    };
    go(executor)
}

/// The run folder, as far as this process writes it.
fn folder(job: &Job<'_>) -> Result<RunFolder, RunError> {
    let open = |log: &Path| RunFolder::open(&job.runs.join(&job.pipeline.name), log);
    match job.share {
        Share::Whole => open(Path::new(EVENTS)),
        Share::Survey => open(Path::new("/dev/null")),
        Share::Part(Part { own, log }) => {
            Ok(open(log)?.with_part(own.iter().map(|&index| job.pipeline.stages[index].id.clone()).collect()))
        }
        Share::Last(last) => {
            let folder = open(Path::new(EVENTS))?;
            folder.gather(&last.logs);
            Ok(folder)
        }
    }
}

pub(super) struct Executor<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) shop: &'a Workshop<'a>,
    pub(super) schedule: Schedule,
    /// The workers, if stages may run side by side.
    pub(super) side_by_side: Option<SideBySide>,
    wanted: BTreeSet<usize>,
    files: BTreeMap<usize, BTreeMap<String, ResolvedFile>>,
    folder: RunFolder,
    pub(super) record: RunRecord,
    /// Of the stages that are cached or done.
    artefacts: BTreeMap<usize, Artefact>,
    /// By stage.
    errors: BTreeMap<usize, RunError>,
    /// Nothing more is started.
    stopped: bool,
}

impl Executor<'_> {
    fn run(mut self) -> Result<RunRecord, RunError> {
        let begun = Instant::now();
        let order = self.job.pipeline.graph.order().iter();
        self.tell(&Event::RunStarted {
            format: EVENT_FORMAT,
            name: self.record.name.clone(),
            program: self.record.program.clone(),
            stages: order.filter(|index| self.wanted.contains(index)).map(|&index| self.id(index)).collect(),
        });
        roots::begin(self.job.store, self.folder.path());
        loop {
            while let (false, Some(index)) = (self.stopped, self.schedule.next_ready()) {
                self.look_up(index).unwrap_or_else(|error| self.failed(index, error));
            }
            if !self.go_on() {
                break;
            }
        }
        self.job.store.save_digests();
        self.finish(begun)
    }

    /// Looks a stage up whose inputs have their artefacts. What the cache lacks runs at once, or waits for its turn
    /// where stages run side by side.
    fn look_up(&mut self, index: usize) -> Result<(), RunError> {
        self.job.interrupt.check()?;
        let id = self.id(index);
        for pinned in self.files[&index].values().filter_map(ResolvedFile::repository) {
            self.tell(&Event::StagePinned { stage: id.clone(), repository: pinned.clone() });
        }
        let manifest = self.shop.reader(index, &self.inputs(index), &self.files[&index]).manifest()?;
        let (key, planned) = (manifest.key(), &self.job.pipeline.stages[index]);
        let stage = &mut self.record.stages[index];
        (stage.key, stage.manifest) = (Some(key), Some(manifest));
        if !self.job.is_forced(planned)
            && let Lookup::Whole(entry) = self.job.store.find(&key)?
        {
            let was_made = self.job.share.was_made(&id, key);
            if was_made {
                self.record.stages[index].state.enter(StageState::Running);
            }
            return self.settle(index, if was_made { StageState::Done } else { StageState::Cached }, &entry);
        }
        match &self.side_by_side {
            _ if matches!(self.job.share, Share::Survey) => Ok(()),
            _ if !self.job.share.makes(index) => self.not_ours(index),
            None => self.obtain(index, None),
            Some(side_by_side) => {
                self.schedule.wait(Piece {
                    index,
                    key,
                    computes: planned.stage.info().computes,
                    measures: planned.stage.measures_machine(),
                    bytes: side_by_side.bytes(index),
                });
                Ok(())
            }
        }
    }

    /// A stage that another process should have made.
    fn not_ours(&mut self, index: usize) -> Result<(), RunError> {
        let id = self.id(index);
        if let Some(text) = self.job.share.note(&id) {
            self.tell(&Event::StageNote { stage: id.clone(), text });
        }
        let error = self.job.share.missing(&id);
        if is_interruption(&error) {
            self.record.stages[index].state.enter(StageState::Running);
        }
        Err(error)
    }

    /// Obtains the artefact of a stage in this process, with a note if it runs.
    pub(super) fn obtain(&mut self, index: usize, note: Option<&str>) -> Result<(), RunError> {
        let artefacts = self.inputs(index);
        let manifest = self.manifest(index);
        let Self { job, shop, side_by_side, files, folder, record, .. } = self;
        let tee = Tee(folder, job.sink);
        let work = Work {
            shop,
            index,
            artefacts: &artefacts,
            files: &files[&index],
            manifest: &manifest,
            folder: folder.path(),
            sink: &tee,
            note,
        };
        let obtained = work.obtain(&mut || {
            record.stages[index].state.enter(StageState::Running);
            folder.write(record)
        })?;
        if side_by_side.is_some() {
            // Workers need what this process keeps.
            memory::give_back();
        }
        match obtained {
            Obtained::Cached(entry) => self.settle(index, StageState::Cached, &entry),
            Obtained::Made(entry) => self.settle(index, StageState::Done, &entry),
        }
    }

    /// Records that a stage has its artefact.
    pub(super) fn settle(&mut self, index: usize, state: StageState, entry: &Entry) -> Result<(), RunError> {
        let artefact = self.job.store.artefact(entry);
        let manifest = self.manifest(index);
        let stage = &mut self.record.stages[index];
        stage.state.enter(state);
        stage.artefact = Some(ArtefactRecord::new(entry, &artefact));
        let id = stage.id.clone();
        self.artefacts.insert(index, artefact);
        self.schedule.done(&self.job.pipeline.graph, index);
        let folders = || self.job.pipeline.trees(index, &self.files[&index], self.job.store);
        self.job.store.remember(&self.record.name, &id, &manifest, folders);
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

    /// Records that a stage runs in a worker. If that cannot be written, nothing more is started.
    pub(super) fn started(&mut self, index: usize) {
        self.record.stages[index].state.enter(StageState::Running);
        if let Err(error) = self.folder.write(&self.record) {
            self.errors.insert(index, error);
            self.stopped = true;
        }
    }

    /// Compares the gates of a stage with its artefact.
    fn compare(&mut self, index: usize) -> Result<(), RunError> {
        let id = self.id(index);
        let inputs = self.job.pipeline.graph.inputs(index).into_iter();
        let places = self.shop.places(inputs.map(|(_, from)| (from, &self.artefacts[&from])));
        let compared = self.job.pipeline.stages[index].stage.verdicts(&self.artefacts[&index].path);
        let verdicts = compared.map_err(|source| {
            let code = ExitCode::of_stage(&source, |_| false);
            RunError::Stage { stage: id.clone(), code, source: places.rename_error(source) }
        })?;
        for verdict in &verdicts {
            self.tell(&Event::GateCompared { stage: id.clone(), verdict: verdict.clone() });
        }
        self.record.stages[index].gates = verdicts;
        Ok(())
    }

    /// Records that a stage failed or stopped, and whether the run goes on.
    pub(super) fn failed(&mut self, index: usize, error: RunError) {
        // What stopped a job stops no other one.
        let interrupted = is_interruption(&error) && !matches!(self.job.share, Share::Last(_));
        self.fail(index, &error);
        // Those that stop because another one failed have no error of their own. Another rank may have been asked to stop.
        if !is_interruption(&error) || self.errors.is_empty() || self.job.interrupt.asked() {
            self.errors.insert(index, error);
        }
        self.stopped |= interrupted || !self.job.options.keep_going;
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
        self.record.stages[index].exit_code = Some(error.exit_code().number());
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

    fn finish(mut self, begun: Instant) -> Result<RunRecord, RunError> {
        let mut errors: Vec<_> = std::mem::take(&mut self.errors).into_values().collect();
        let waits = |&index: &usize| self.record.stages[index].state == StageState::Waiting;
        let is_cut_off = self.job.interrupt.asked() && self.wanted.iter().any(waits);
        if is_cut_off || errors.iter().any(is_interruption) {
            errors = vec![Interrupted.into()];
        }
        let is_part = matches!(self.job.share, Share::Part(_));
        let missed = self.record.gates().filter(|(_, verdict)| !verdict.met);
        let missed: Vec<String> = missed.map(|(_, verdict)| verdict.in_words()).collect();
        let error = match errors.len() {
            // A gate that is not met ends no run, so the job of its stage holds up no other one.
            0 if !missed.is_empty() && !is_part => Some(RunError::Gates { missed }),
            0 | 1 => errors.pop(),
            _ => Some(RunError::Several { errors }),
        };
        let code = error.as_ref().map_or(ExitCode::Done, RunError::exit_code).number();
        let mut seconds = begun.elapsed().as_secs_f64();
        if let Some((started, all)) = self.job.share.started() {
            (self.record.started, seconds) = (started, all);
        }
        self.record.finished = Some(clock::now());
        self.record.seconds = Some(seconds);
        self.record.exit_code = Some(code);
        let written = self.folder.write(&self.record);
        // The links and the keys are those of the whole run.
        let mut linked = Ok(());
        if !is_part {
            linked = self.folder.link(&self.record, self.job.store.root());
            roots::end(self.job.store, self.folder.path(), &self.record);
        }
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

    /// What the bytes of a stage depend on, which was looked up.
    pub(super) fn manifest(&self, index: usize) -> Manifest {
        self.record.stages[index].manifest.clone().expect("BUG: the stage was not looked up")
    }

    /// The artefacts that a stage reads, by the names of its inputs.
    pub(super) fn inputs(&self, index: usize) -> BTreeMap<String, Artefact> {
        let inputs = self.job.pipeline.graph.inputs(index).into_iter();
        inputs.map(|(name, from)| (name.to_owned(), self.artefacts[&from].clone())).collect()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(super) fn id(&self, index: usize) -> StageId {
        self.record.stages[index].id.clone()
    }

    pub(super) fn tell(&self, event: &Event) {
        Tee(&self.folder, self.job.sink).event(event);
    }
}

/// Whether the run was asked to stop, wherever that was noticed.
pub(super) fn is_interruption(error: &RunError) -> bool {
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
