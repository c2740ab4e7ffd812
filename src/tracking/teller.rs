//! One look at a run: what its event log, its record and its artefacts say that the server does not know yet.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::log::Log;
use super::mlflow::{Client, Owner, Run};
use super::numbers;
use super::subject::{ERRORS, Status, Subject, View, subjects};
use super::training::{Read, Training};
use crate::base::lock::FileLock;
use crate::base::{Digest, Interrupt, Server, clock};
use crate::plan::Branch;
use crate::report;
use crate::run::{RunRecord, StageState};

/// The folder below the run folder that knows the runs of the server.
const FOLDER: &str = ".mlflow";

/// The largest file that is sent: a report with many pictures.
const LARGEST: u64 = 100 << 20;

/// The experiment, if MLflow's own variable names no other one.
const EXPERIMENT: &str = "laptop-diff";

/// What is followed.
#[derive(Clone, Debug)]
pub struct Source {
    /// The run folder, which need not exist yet.
    pub folder: PathBuf,
    /// The event log.
    pub log: PathBuf,
    /// What this process does of the run.
    pub role: Role,
}

/// What a process does of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All of it.
    Whole,
    /// Some stages; a later process finishes the run.
    Part,
    /// It finishes what others have done.
    Last,
}

pub(super) struct Teller {
    client: Client,
    source: Source,
    experiment: String,
    log: Log,
    /// When it began to look, as the record writes times.
    since: String,
    record: Option<RunRecord>,
    /// When the record was written that was read last.
    stamp: Option<(SystemTime, u64)>,
    subjects: Vec<Subject>,
    /// Those that were seen in the server.
    sure: BTreeSet<usize>,
    read: Read,
    /// Whether something has changed since everything was told.
    changed: bool,
    /// Why the server takes no files.
    pub(super) no_files: Option<String>,
}

impl Teller {
    pub(super) fn new(server: Server, source: Source) -> Self {
        let experiment = std::env::var("MLFLOW_EXPERIMENT_NAME").ok().filter(|name| !name.is_empty());
        Self {
            client: Client::new(server),
            experiment: experiment.unwrap_or_else(|| EXPERIMENT.to_owned()),
            log: Log::new(source.log.clone()),
            since: clock::now(),
            source,
            record: None,
            stamp: None,
            subjects: Vec::new(),
            sure: BTreeSet::new(),
            read: Read::default(),
            changed: false,
            no_files: None,
        }
    }

    /// Whether the run is over.
    pub(super) fn is_over(&self) -> bool {
        self.log.happened.end.is_some()
    }

    /// Tells what is new; with `last` also the files of the run as a whole.
    pub(super) fn look(&mut self, last: bool) -> Result<(), String> {
        self.changed |= self.log.more();
        self.changed |= self.read_record();
        let Some(record) = self.record.take() else { return Ok(()) };
        let told = self.all(&record, last);
        self.record = Some(record);
        self.changed &= told.is_err();
        told
    }

    /// Reads the record of this run again if it was written since. One that an earlier run left is not read.
    fn read_record(&mut self) -> bool {
        let stamp = || {
            let file = fs::metadata(self.source.folder.join("run.json")).ok()?;
            Some((file.modified().ok()?, file.len()))
        };
        let stamp = stamp();
        if stamp.is_none() || stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        let Ok(record) = RunRecord::read(&self.source.folder) else { return false };
        if record.started < self.since && self.source.role == Role::Whole {
            return false;
        }
        if self.record.is_none() {
            self.subjects = subjects(&record);
        }
        self.record = Some(record);
        true
    }

    fn all(&mut self, record: &RunRecord, last: bool) -> Result<(), String> {
        if self.log.happened.wanted.is_empty() || !self.is_needed(record, last) {
            return Ok(());
        }
        let folder = self.source.folder.join(FOLDER);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        // Jobs of the same run tell the same server.
        let lock = folder.join(".lock");
        let _lock = FileLock::acquire(&lock, &Interrupt::default(), &mut |_| {})
            .map_err(|error| format!("{}: {error}", lock.display()))?;
        let pipeline =
            Digest::of(format!("{}\n{}\n{}", record.name, record.seed, record.pipeline).as_bytes());
        let mut owner = Owner { server: self.client.address(), pipeline: Some(pipeline), parent: None };
        let subjects = std::mem::take(&mut self.subjects);
        let mut told = Ok(());
        for (index, subject) in subjects.iter().enumerate() {
            let file = folder.join(file_name(&subject.branch));
            match self.tell(record, (index, subject), (&file, &owner), last) {
                Ok(id) if index == 0 => owner.parent = id,
                Ok(_) => {}
                Err(error) => {
                    told = told.and(Err(error));
                    // What it refuses of one branch is no reason to leave out the others.
                    if index == 0 || !self.client.answers() {
                        break;
                    }
                }
            }
        }
        self.subjects = subjects;
        told
    }

    /// Whether anything can be new: a change, or a training that runs.
    fn is_needed(&self, record: &RunRecord, last: bool) -> bool {
        let trains = || {
            let running = record.stages.iter().filter(|stage| stage.stage == "distill");
            running.into_iter().any(|stage| self.log.happened.state(&stage.id) == StageState::Running)
        };
        last || self.changed || trains()
    }

    /// Tells of one run of the server. Returns its id, if it has begun.
    fn tell(
        &mut self,
        record: &RunRecord,
        (index, subject): (usize, &Subject),
        (file, owner): (&Path, &Owner),
        last: bool,
    ) -> Result<Option<String>, String> {
        let view = View { subject, record, happened: &self.log.happened };
        let Some(status) = view.status(self.source.role == Role::Part) else { return Ok(None) };
        let (begun, ended) = view.times();
        let mut run = Run::read(file, owner, begun);
        let running = view.stages().any(|stage| view.happened.state(&stage.id) == StageState::Running);
        if !self.changed && !last && !running {
            return Ok(run.id().map(ToOwned::to_owned));
        }
        let parameters = view.parameters();
        if run.contradicts(&parameters) {
            run = Run::new(file, owner, begun);
        }
        run.begin(&self.client, (&self.experiment, &subject.name), self.sure.contains(&index))?;
        self.sure.insert(index);
        let mut tags = view.tags(view.error().as_deref());
        keep_made(&mut tags, &run);
        // A job does not know how the others ended.
        let passing = if self.source.role == Role::Part { &[][..] } else { &ERRORS[..] };
        run.describe(&self.client, &parameters, &tags, passing)?;
        stages(&view, &self.client, &mut run)?;
        for (stage, node) in view.nodes() {
            let Some(training) = Training::of(record, stage, node.origin().as_str()) else { continue };
            training.tell(index, (&self.client, &mut run), &mut self.read)?;
        }
        if run.no_files().is_none() && last && view.is_whole() && self.source.role != Role::Part {
            files(&self.source.folder, record, &self.client, &mut run)?;
        }
        self.no_files = run.no_files().or(self.no_files.take());
        let ended = Some(ended).filter(|_| status != Status::Running);
        run.stands(&self.client, status.name(), ended)?;
        Ok(run.id().map(ToOwned::to_owned))
    }
}

/// A stage that this run made stays one that was made when it comes from the cache later.
fn keep_made(tags: &mut std::collections::BTreeMap<String, String>, run: &Run) {
    let done = StageState::Done.to_string();
    let stages: Vec<String> =
        tags.keys().filter_map(|name| name.strip_prefix("stage.")).map(str::to_owned).collect();
    for origin in stages {
        let (state, key) = (format!("stage.{origin}"), format!("key.{origin}"));
        let same_key = tags.get(&key).is_some_and(|key_now| run.has_tag(&key, key_now));
        if tags[&state] == StageState::Cached.to_string() && same_key && run.has_tag(&state, &done) {
            tags.insert(state, done.clone());
        }
    }
}

/// Sends numbers and small files of the stages that have their artefacts.
fn stages(view: &View<'_>, client: &Client, run: &mut Run) -> Result<(), String> {
    for (stage, node) in view.nodes() {
        let (Some(key), Some(artefact)) = (stage.key, &stage.artefact) else { continue };
        let (origin, gates) = (node.origin(), stage.gates.len());
        // A stage is told again when it has gates, which come after its artefact.
        let told = Digest::of(format!("{key} {gates}").as_bytes());
        if run.has_stage(origin.as_str(), &told) {
            continue;
        }
        if run.no_files().is_none() {
            for name in numbers::files(stage, node.output) {
                send(&artefact.path.join(name), &format!("{origin}/{name}"), client, run)?;
            }
        }
        let found = numbers::of(stage, node.output, origin);
        run.stage(client, (origin.as_str(), told), found, numbers::made(artefact))?;
    }
    Ok(())
}

/// Sends the files of the run as a whole.
fn files(folder: &Path, record: &RunRecord, client: &Client, run: &mut Run) -> Result<(), String> {
    run.file(client, "pipeline.yaml", record.pipeline.as_bytes())?;
    for name in [report::FILE, "run.json"] {
        send(&folder.join(name), name, client, run)?;
    }
    Ok(())
}

/// Sends a file if it is there and not too large.
fn send(path: &Path, name: &str, client: &Client, run: &mut Run) -> Result<(), String> {
    let is_small = path.metadata().is_ok_and(|file| file.len() <= LARGEST);
    match fs::read(path) {
        Ok(bytes) if is_small => run.file(client, name, &bytes),
        _ => Ok(()),
    }
}

/// The file that knows the run of a branch, or of the run as a whole.
fn file_name(branch: &Branch) -> String {
    if branch.is_empty() {
        return "run.json".to_owned();
    }
    let text = format!("{branch:?}");
    format!("branch-{}.json", Digest::of(text.as_bytes()).short())
}
