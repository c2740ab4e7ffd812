//! The executor on small stages made for it. Each test claims one thing.

mod crash;
mod freshness;
mod inputs;
mod intermediates;
mod share;
mod walk;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, fs};

use super::{Event, Job, Options, RunError, RunRecord, Share, Sink, StageState, execute, survey};
use crate::backend::DeviceChoice;
use crate::base::{ArtefactKind, Interrupt, Manifest, StageId};
use crate::cache::Store;
use crate::plan::ResolvedPipeline;
use crate::stage::{Context, FileInput, Input, Stage, StageError, StageInfo};
use crate::train::TrainingSettings;
use crate::train::collective::Alone;

/// The name, version and needs of a stage for tests.
const fn info(name: &'static str, version: u32, seeded: bool, computes: bool) -> StageInfo {
    StageInfo {
        name,
        version,
        summary: "for tests",
        output: ArtefactKind::Selection,
        seeded,
        computes,
        schema: |_| schemars::Schema::default(),
    }
}

static PLAIN: StageInfo = info("plain", 1, false, false);
static PLAIN_NEWER: StageInfo = info("plain", 2, false, false);
static SEEDED: StageInfo = info("seeded", 1, true, false);
static COMPUTING: StageInfo = info("computing", 1, false, true);

type Act = Arc<dyn Fn(&Context<'_>) -> Result<(), StageError> + Send + Sync>;

/// A stage that writes its value after what it reads, or does what it is told to.
#[derive(Clone)]
struct Fake {
    id: StageId,
    info: &'static StageInfo,
    value: String,
    reads: Vec<StageId>,
    file: Option<PathBuf>,
    act: Act,
}

fn fake(id: &str, reads: &[&str]) -> Fake {
    let reads = reads.iter().map(|&id| id.into()).collect();
    let (id, value) = (StageId::from(id), format!("value of {id};"));
    Fake { id, info: &PLAIN, value: value.clone(), reads, file: None, act: writes(&value) }
}

/// The usual act: what the inputs hold, what the file holds, then `value`.
fn writes(value: &str) -> Act {
    let value = value.to_owned();
    Arc::new(move |context| {
        let mut text = String::new();
        let inputs = context.inputs.values().map(|artefact| artefact.path.join("selection.json"));
        for path in inputs.chain(context.files.keys().map(|name| context.file(name).to_owned())) {
            text += &fs::read_to_string(&path).map_err(StageError::file(&path))?;
        }
        put(context, &(text + &value))
    })
}

fn put(context: &Context<'_>, text: &str) -> Result<(), StageError> {
    let path = context.output.join("selection.json");
    fs::write(&path, text).map_err(StageError::file(&path))
}

impl Fake {
    fn kind(mut self, info: &'static StageInfo) -> Self {
        self.info = info;
        self
    }

    /// The same under another id and with another key.
    fn named(mut self, id: &str) -> Self {
        (self.id, self.value) = (id.into(), format!("value of {id};"));
        self
    }

    fn value(mut self, value: &str) -> Self {
        self.value = value.to_owned();
        self.act = writes(value);
        self
    }

    fn file(mut self, path: &str) -> Self {
        self.file = Some(path.into());
        self
    }

    fn act(mut self, act: impl Fn(&Context<'_>) -> Result<(), StageError> + Send + Sync + 'static) -> Self {
        self.act = Arc::new(act);
        self
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake").field("id", &self.id).field("value", &self.value).finish_non_exhaustive()
    }
}

impl Stage for Fake {
    fn info(&self) -> &'static StageInfo {
        self.info
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest.field("value", &self.value);
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        let input = |(index, stage)| Input {
            name: format!("reads.{index}"),
            stage,
            kinds: &[ArtefactKind::Selection],
        };
        self.reads.iter().enumerate().map(input).collect()
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        self.file.iter().map(|path| FileInput::path("file", path)).collect()
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        (self.act)(context)
    }
}

/// Keeps the events of a run.
#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Sink for Told {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
    }
}

/// A folder with a cache, run folders and a pipeline in it.
struct Sandbox {
    _temporary: Option<tempfile::TempDir>,
    folder: PathBuf,
    name: &'static str,
    seed: u64,
    device: DeviceChoice,
    options: Options,
    share: Share,
    interrupt: Arc<Interrupt>,
}

/// How a run in a sandbox ended.
struct Ran {
    result: Result<RunRecord, RunError>,
    record: RunRecord,
    events: Vec<Event>,
}

impl Sandbox {
    fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let folder = temporary.path().join("project");
        fs::create_dir(&folder).expect("writable");
        Self { _temporary: Some(temporary), ..Self::at(folder) }
    }

    fn at(folder: PathBuf) -> Self {
        Self {
            _temporary: None,
            folder,
            name: "test",
            seed: 42,
            device: DeviceChoice::Cpu,
            options: Options::default(),
            share: Share::Whole,
            interrupt: Arc::default(),
        }
    }

    fn store(&self) -> Store {
        Store::open(&self.folder.join("cache")).expect("a cache of this format")
    }

    fn try_run(&self, stages: &[Fake]) -> (Result<RunRecord, RunError>, Vec<Event>) {
        self.with_job(stages, execute)
    }

    fn with_job<T>(&self, stages: &[Fake], go: impl FnOnce(&Job<'_>) -> T) -> (T, Vec<Event>) {
        let entry = |fake: &Fake| (fake.id.clone(), Box::new(fake.clone()) as Box<dyn Stage>);
        let stages = stages.iter().map(entry).collect();
        let path = self.folder.join("pipeline.yaml");
        let pipeline = ResolvedPipeline::of_stages(self.name, self.seed, stages, &path);
        let pipeline = pipeline.expect("the references are right");
        let told = Told::default();
        let result = go(&Job {
            pipeline: &pipeline,
            store: &self.store(),
            runs: &self.folder.join("runs"),
            device: self.device,
            places: &[],
            options: &self.options,
            share: &self.share,
            training: &TrainingSettings {
                checkpoint_every_steps: None,
                checkpoint_every_minutes: None,
                keep_checkpoints: 2,
                keep_state: true,
                tensorboard: false,
            },
            sink: &told,
            interrupt: &self.interrupt,
            ranks: &Alone,
        });
        (result, told.0.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn run(&self, stages: &[Fake]) -> Ran {
        let (result, events) = self.try_run(stages);
        let record = RunRecord::read(&self.run_folder()).expect("every run that begins leaves a record");
        Ran { result, record, events }
    }

    fn run_folder(&self) -> PathBuf {
        self.folder.join("runs").join(self.name)
    }

    fn text(&self, stage: &str) -> String {
        fs::read_to_string(self.run_folder().join(stage).join("selection.json"))
            .expect("the stage has its artefact")
    }

    fn until(&mut self, id: &str) -> &mut Self {
        self.options.until = Some(id.into());
        self
    }

    fn force(&mut self, id: &str) -> &mut Self {
        self.options.force = BTreeSet::from([id.into()]);
        self
    }
}

impl Ran {
    /// The ids of the stages in a state, in the file's order.
    fn are(&self, state: StageState) -> Vec<&str> {
        self.record
            .stages
            .iter()
            .filter(|stage| stage.state == state)
            .map(|stage| stage.id.as_str())
            .collect()
    }

    fn exit_code(&self) -> u8 {
        let code = self.result.as_ref().err().map_or(0, |error| error.exit_code().number());
        assert_eq!(self.record.exit_code, Some(code), "the record and the error say the same");
        code
    }

    fn error(&self) -> &RunError {
        self.result.as_ref().expect_err("the run should fail")
    }
}

/// The entries of the cache, to see that nothing half-done got in.
fn entries(sandbox: &Sandbox) -> usize {
    fs::read_dir(sandbox.folder.join("cache/v1/entries")).map_or(0, Iterator::count)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("writable");
}
