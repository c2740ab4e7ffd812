//! The interface between the method and the runner: how a stage describes itself, and what it receives when it runs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::Device;

use super::error::StageError;
use super::excerpt::{Excerpt, Reader};
use super::needs::{KnownModel, KnownRows, Needs, Outlook};
use super::resolved_file::{ResolvedFile, path_of};
use crate::backend::Random;
use crate::base::BadValue;
use crate::base::{Artefact, ArtefactKind, Interrupt, Manifest, Progress, StageId};
use crate::metric::Verdict;
use crate::model::UNetConfig;
use crate::train::TrainingSettings;
use crate::train::collective::Collective;

/// A stage with its parameters, as a pipeline file states it. Two stages with equal `Debug` texts have equal parameters.
pub trait Stage: Send + Sync + fmt::Debug {
    /// Its row in [`STAGES`](super::STAGES).
    fn info(&self) -> &'static StageInfo;

    /// Adds every parameter that can change the output's bytes. Inputs, files, seed, device class
    /// and the stage's name and version are added by the planner.
    fn describe(&self, manifest: &mut Manifest);

    /// The stages whose artefacts it reads.
    fn inputs(&self) -> Vec<Input<'_>>;

    /// The files and folders it reads, named by the parameter that gives them. What it reads of them enters
    /// the key, their paths do not.
    fn files(&self) -> Vec<FileInput<'_>> {
        Vec::new()
    }

    /// Checks the parameters beyond their types.
    fn check(&self) -> Result<(), BadValue> {
        Ok(())
    }

    /// Checks the files that [`Stage::files`] lists, before any stage runs. It is called by `plan` too, so it must be
    /// quick: headers of weights may be read, the weights may not.
    fn check_files(&self, _files: &BTreeMap<String, ResolvedFile>) -> Result<(), StageError> {
        Ok(())
    }

    /// The U-Net of the model in its files, if they are on this machine and can be read.
    fn unet_of_files(&self, _files: &BTreeMap<String, ResolvedFile>) -> Option<UNetConfig> {
        None
    }

    /// Checks that it can work with a model among its inputs, before any stage runs. `unet` is the U-Net that was loaded:
    /// the model itself, or the one that it is pruned from.
    fn check_unet(&self, _unet: &UNetConfig) -> Result<(), StageError> {
        Ok(())
    }

    /// What is known of the model in its files, if they are on this machine and can be read.
    fn model_of_files(&self, _files: &BTreeMap<String, ResolvedFile>) -> Option<KnownModel> {
        None
    }

    /// The share of the parameters that a selection asks to remove.
    fn removes(&self) -> Option<f64> {
        None
    }

    /// The rows that it makes with such a model.
    fn makes(&self, _model: &KnownModel) -> Option<KnownRows> {
        None
    }

    /// What it will take; `None` if that is next to nothing, or unknown.
    fn needs(&self, _outlook: &Outlook<'_>) -> Option<Needs> {
        None
    }

    /// Whether it measures times or memory of this machine, so that nothing else may run beside it.
    fn measures_machine(&self) -> bool {
        false
    }

    /// The end states of runs with fewer steps that this stage, whose bytes depend on `manifest`, could go on from.
    fn earlier(&self, _manifest: &Manifest) -> Option<Earlier> {
        None
    }

    /// Adds a gate of the pipeline. Only evaluations have results to compare it with.
    fn add_gate(&mut self, _gate: &str) -> Result<(), BadValue> {
        panic!("BUG: only evaluations are given gates")
    }

    /// The gates of this stage, compared with its artefact in `folder`. They change no byte of it, so they are compared
    /// after every run, cached or not.
    fn verdicts(&self, _folder: &Path) -> Result<Vec<Verdict>, StageError> {
        Ok(Vec::new())
    }

    /// Fills `context.output`.
    fn run(&self, context: &Context<'_>) -> Result<(), StageError>;
}

/// Where a stage could go on from.
pub struct Earlier {
    /// What the state at the end of this very stage depends on, as an intermediate artefact.
    pub state: Manifest,
    /// Which value of it may be smaller.
    pub name: &'static str,
    /// That value here.
    pub wanted: u64,
    /// Why no state with a smaller value can be used: a parameter on which every step depends.
    pub obstacle: Option<String>,
}

/// A reference to another stage.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The parameter that holds it: `scores`, or `models.pruned` inside a map.
    pub name: String,
    /// The stage it names.
    pub stage: &'a StageId,
    /// The accepted kinds of artefact; that stage must produce one of them.
    pub kinds: &'static [ArtefactKind],
}

/// A path given by a parameter; relative paths start at the pipeline file's folder.
pub struct FileInput<'a> {
    /// The parameter that holds it.
    pub name: Cow<'a, str>,
    /// The path as written.
    pub path: &'a Path,
    /// The revision, if the path may also be the name of a repository on the hub. The planner resolves it to a
    /// commit, which enters the key.
    pub revision: Option<&'a str>,
    /// Where it can be had and how big it is, if it is something that users fetch. Without it a run ends before its first
    /// stage with a list of all such files, but a plan can be made.
    pub from: Option<&'static str>,
    /// Finds out which part of it is read.
    pub reader: Reader<'a>,
}

impl<'a> FileInput<'a> {
    /// A path that cannot be a repository, and of which everything is read.
    pub fn path(name: impl Into<Cow<'a, str>>, path: &'a Path) -> Self {
        Self::part(name, path, |_| Ok(Excerpt::everything()))
    }

    /// A path that cannot be a repository, and of which `reader` tells the part that is read.
    pub fn part(
        name: impl Into<Cow<'a, str>>,
        path: &'a Path,
        reader: impl Fn(&Path) -> Result<Excerpt, StageError> + 'a,
    ) -> Self {
        Self::drawn(name, path, move |path, _| reader(path))
    }

    /// A path that cannot be a repository, and of which `reader` tells the part that the stage draws by its seed.
    pub fn drawn(
        name: impl Into<Cow<'a, str>>,
        path: &'a Path,
        reader: impl Fn(&Path, &Random) -> Result<Excerpt, StageError> + 'a,
    ) -> Self {
        Self { name: name.into(), path, revision: None, from: None, reader: Box::new(reader) }
    }
}

/// Keeps intermediate artefacts: work that several stages share, such as what an evaluation measures of the teacher.
pub trait Intermediates: Sync {
    /// The folder of the intermediate artefact that depends on `manifest` alone. If it is not in the cache, `fill` fills
    /// it, given that folder and one for checkpoints, which survives a crash.
    fn intermediate(
        &self,
        manifest: &Manifest,
        fill: &dyn Fn(&Path, &Path) -> Result<(), StageError>,
    ) -> Result<PathBuf, StageError>;

    /// The whole intermediate artefacts in the cache that depend on the same as `manifest`, but for the value of `name`:
    /// that value and the folder. There are none where everything is to be made again.
    fn alike(&self, manifest: &Manifest, name: &str) -> Result<Vec<(String, PathBuf)>, StageError>;
}

/// What a stage receives when it runs.
pub struct Context<'a> {
    /// What its bytes depend on.
    pub manifest: &'a Manifest,
    /// Intermediate artefacts, which other stages may have made already.
    pub intermediates: &'a dyn Intermediates,
    /// Input artefacts by the names of [`Stage::inputs`].
    pub inputs: &'a BTreeMap<String, Artefact>,
    /// The resolved files, by the names of [`Stage::files`].
    pub files: &'a BTreeMap<String, ResolvedFile>,
    /// An empty folder; its contents when `run` returns are the artefact.
    pub output: &'a Path,
    /// A folder for checkpoints, which survives a crash and belongs to this key alone.
    pub checkpoint: &'a Path,
    /// The device of all tensors.
    pub device: &'a Device,
    /// The stage's random streams.
    pub random: Random,
    /// Receives the progress.
    pub progress: &'a dyn Progress,
    /// Checked at safe points for a request to stop.
    pub interrupt: &'a Interrupt,
    /// The processes that train together; this one is the first.
    pub ranks: &'a dyn Collective,
    /// How a training is kept and watched. Changes no result.
    pub training: &'a TrainingSettings,
    /// The stage in its run, for those who watch it.
    pub seat: Seat<'a>,
}

/// Where a running stage is found by people.
#[derive(Clone, Copy)]
pub struct Seat<'a> {
    /// The name of the run.
    pub run: &'a str,
    /// The run folder.
    pub folder: &'a Path,
    /// The stage's id.
    pub stage: &'a StageId,
}

impl Context<'_> {
    /// The artefact of an input that [`Stage::inputs`] listed.
    pub fn input(&self, name: &str) -> &Artefact {
        self.inputs.get(name).unwrap_or_else(|| panic!("BUG: input `{name}` was not resolved"))
    }

    /// The resolved form of a file that [`Stage::files`] listed.
    pub fn source(&self, name: &str) -> &ResolvedFile {
        self.files.get(name).unwrap_or_else(|| panic!("BUG: file `{name}` was not resolved"))
    }

    /// The path of a file that [`Stage::files`] listed without a revision.
    pub fn file(&self, name: &str) -> &Path {
        path_of(self.files, name)
    }
}

/// One row of [`STAGES`](super::STAGES).
pub struct StageInfo {
    /// The `use:` name.
    pub name: &'static str,
    /// Raised whenever the same inputs would give different bytes.
    pub version: u32,
    /// One line for `laptop-diff list`.
    pub summary: &'static str,
    /// What it produces.
    pub output: ArtefactKind,
    /// Whether its bytes depend on the pipeline's seed.
    pub seeded: bool,
    /// Whether its bytes depend on the device class.
    pub computes: bool,
    /// JSON schema of its `with:` block.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}
