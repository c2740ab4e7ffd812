//! One layer of settings: a file, the environment or the flags. Each is read by itself, so that an error names it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::error::{ConfigError, ConfigErrorKind};
use super::slurm::SlurmSettings;
use super::source_text::SourceText;
use super::text_file::{self, Unread};
use super::{classify, survey};
use crate::backend::DeviceChoice;
use crate::base::Whole;
use crate::base::units::Bytes;
use crate::base::{Server, names, shown};
use crate::cache::{Address, Recheck};

/// The prefix of environment variables. Never `LD_`: that would swallow `LD_LIBRARY_PATH`.
pub(super) const PREFIX: &str = "LAPTOP_DIFF_";

/// A number of CPU threads; no machine has more cores.
pub type Threads = Whole<1, 4096>;

/// A number of stages at the same time.
pub type Jobs = Whole<1, 1024>;

/// Steps between two checkpoints.
pub type Steps = Whole<1, 1_000_000_000>;

/// Minutes between two checkpoints, at most a week.
pub type Minutes = Whole<1, 10_080>;

/// How many checkpoints are kept.
pub type Checkpoints = Whole<1, 1000>;

/// The settings of one layer. Settings say how to run on this machine and never change a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Layer {
    /// Folder of the artefact cache. Default `.laptop-diff/cache`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "bytes_of_path")]
    pub cache: Option<PathBuf>,
    /// Folder for run folders, one per pipeline name. Default `runs`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "bytes_of_path")]
    pub runs: Option<PathBuf>,
    /// Device: `auto`, `cpu`, `cuda:N` or `cuda:N+tf32`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = "^(auto|cpu|cuda|cuda:[0-9]+)$"))]
    pub device: Option<DeviceChoice>,
    /// Number of CPU threads. Default: one per core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<Threads>,
    /// How many stages run at the same time. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Jobs>,
    /// Approximate memory budget, such as `8 GB`. Default: the system's free memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^[0-9.]+ *([kKMGT]i?)?B$"))]
    pub memory: Option<Bytes>,
    /// Which inputs and artefacts are read again to check their digests: `changed`, those whose size, times or inode changed
    /// since they were last read; or `all`, which also finds bytes that changed by themselves. Default `changed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recheck: Option<Recheck>,
    /// Where artefacts are shared with other machines: a folder, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
    /// `az://CONTAINER/PREFIX`. A run fetches from there what its cache lacks, and sends what it makes. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub remote: Option<Address>,
    /// Address of the server of the `remote`, if it is not the usual one of its kind, such as `http://127.0.0.1:9000` of
    /// something that speaks S3. Default: as the environment says, in `AWS_ENDPOINT_URL` for example.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = "^https?://"))]
    pub remote_endpoint: Option<Server>,
    /// Number of steps between two checkpoints of a training. Default: by time only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every_steps: Option<Steps>,
    /// Minutes between two checkpoints of a training. Default: every ten seconds, or as often as writing takes a twentieth
    /// of the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every_minutes: Option<Minutes>,
    /// How many checkpoints of a training are kept while it runs. Default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_checkpoints: Option<Checkpoints>,
    /// Keeps the state at the end of a training in the cache, where its learning rate does not depend on the number of
    /// steps, so that a run with more steps goes on from there. It has 16 bytes per parameter. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_training_state: Option<bool>,
    /// Writes event files for TensorBoard into `tensorboard/` of the run folder. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensorboard: Option<bool>,
    /// Address of an MLflow server that receives runs and the branches of sweeps, such as `http://127.0.0.1:5000`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = "^https?://"))]
    pub mlflow: Option<Server>,
    /// What the jobs of `--executor slurm` ask for: under `default` all, under the name of a kind of stage
    /// those, under `finish` the last one. Default: what the cluster gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slurm: Option<SlurmSettings>,
    /// A command that the shell runs when a run ends, with RUN_NAME, RUN_STATE (`done`, `failed`, `interrupted`,
    /// `gates-not-met`), RUN_EXIT_CODE, RUN_FOLDER and RUN_REPORT in its environment. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_end: Option<String>,
}

/// Paths go through figment as bytes, since they need not be UTF-8.
fn bytes_of_path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.as_os_str()).serialize(serializer)
}

impl Layer {
    /// A settings file; `None` if it does not exist.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        match text_file::read(path) {
            Ok(source) => Ok(Some(Self::parse(&source)?)),
            Err(Unread::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(Unread::Io(error)) => Err(bad(format!("{}: {error}", path.display())).into()),
            Err(Unread::Text(error)) => Err(error),
        }
    }

    pub(super) fn parse(source: &SourceText) -> Result<Self, ConfigError> {
        let layer = Self::parse_shown(source);
        if holds_credentials(source.text()) { layer.map_err(ConfigError::without_source) } else { layer }
    }

    /// Errors show the text of the file.
    fn parse_shown(source: &SourceText) -> Result<Self, ConfigError> {
        // A file that holds only comments is not a YAML document, but it is valid.
        if source.is_blank() {
            return Ok(Self::default());
        }
        survey::check(source)?;
        let layer: Result<Option<Self>, _> = serde_yaml::from_str(source.text());
        layer.map(Option::unwrap_or_default).map_err(|error| {
            classify::types(&error, source, source.name()).map(|kind| match kind {
                ConfigErrorKind::UnknownKey { key, known, .. } => {
                    ConfigErrorKind::UnknownSetting { key, file: source.name().to_owned(), known }
                }
                other => bad(other.to_string()),
            })
        })
    }

    /// Environment variables, such as `LAPTOP_DIFF_CACHE=/scratch/cache`. An empty one is as if it were not set, and
    /// one that is no setting belongs to somebody else.
    pub(super) fn from_environment(variables: &[(OsString, OsString)]) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for (name, value) in variables.iter().filter(|(_, value)| !value.is_empty()) {
            let Some(key) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            match key {
                "CACHE" => layer.cache = Some(value.into()),
                "RUNS" => layer.runs = Some(value.into()),
                "DEVICE" => layer.device = Some(parsed(key, value, str::parse)?),
                "THREADS" => layer.threads = Some(parsed(key, value, whole)?),
                "JOBS" => layer.jobs = Some(parsed(key, value, whole)?),
                "MEMORY" => layer.memory = Some(parsed(key, value, str::parse)?),
                "RECHECK" => layer.recheck = Some(parsed(key, value, recheck)?),
                "REMOTE" => layer.remote = Some(parsed(key, value, str::parse)?),
                "REMOTE_ENDPOINT" => layer.remote_endpoint = Some(parsed(key, value, str::parse)?),
                "CHECKPOINT_EVERY_STEPS" => layer.checkpoint_every_steps = Some(parsed(key, value, whole)?),
                "CHECKPOINT_EVERY_MINUTES" => {
                    layer.checkpoint_every_minutes = Some(parsed(key, value, whole)?);
                }
                "KEEP_CHECKPOINTS" => layer.keep_checkpoints = Some(parsed(key, value, whole)?),
                "KEEP_TRAINING_STATE" => layer.keep_training_state = Some(parsed(key, value, yes_or_no)?),
                "TENSORBOARD" => layer.tensorboard = Some(parsed(key, value, yes_or_no)?),
                "ON_END" => layer.on_end = Some(parsed(key, value, |text| Ok(text.to_owned()))?),
                "MLFLOW" => layer.mlflow = Some(parsed(key, value, str::parse)?),
                _ => {}
            }
        }
        Ok(layer)
    }
}

/// The settings that a variable can give, as the variables are called after [`PREFIX`].
const VARIABLES: [&str; 16] = [
    "CACHE",
    "RUNS",
    "DEVICE",
    "THREADS",
    "JOBS",
    "MEMORY",
    "RECHECK",
    "REMOTE",
    "REMOTE_ENDPOINT",
    "CHECKPOINT_EVERY_STEPS",
    "CHECKPOINT_EVERY_MINUTES",
    "KEEP_CHECKPOINTS",
    "KEEP_TRAINING_STATE",
    "TENSORBOARD",
    "MLFLOW",
    "ON_END",
];

/// What to say about variables that begin as ours do and give no setting.
pub(super) fn unknown_variables(variables: &[(OsString, OsString)]) -> Vec<String> {
    let known: Vec<_> = VARIABLES.iter().map(|key| format!("{PREFIX}{key}")).collect();
    let names = variables.iter().map(|(name, _)| name.to_string_lossy());
    let unknown = names.filter(|name| name.starts_with(PREFIX) && !known.iter().any(|known| known == name));
    unknown
        .map(|name| {
            let help = names::help(&name, &known);
            format!("the environment variable `{name}` is not a setting and has no effect; {help}")
        })
        .collect()
}

/// Whether an address in a text has a part that may be a password, which no message may show.
fn holds_credentials(text: &str) -> bool {
    let addresses = text.split("://").skip(1).filter_map(|rest| rest.split_whitespace().next());
    addresses.into_iter().any(|address| address.contains(['@', '?']))
}

fn parsed<T>(
    key: &str,
    value: &OsStr,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    let text = value.to_str().ok_or_else(|| "its value is not UTF-8".to_owned());
    text.and_then(parse).map_err(|message| bad(format!("{PREFIX}{key}: {message}")).into())
}

fn whole<const LEAST: u32, const MOST: u32>(text: &str) -> Result<Whole<LEAST, MOST>, String> {
    let needed = Whole::<LEAST, MOST>::needed();
    text.trim().parse().map_err(|_| format!("`{}` is not {needed}", shown::brief(text)))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    text.trim().parse().map_err(|_| format!("`{}` is neither `true` nor `false`", shown::brief(text)))
}

fn recheck(text: &str) -> Result<Recheck, String> {
    ValueEnum::from_str(text.trim(), false)
        .map_err(|_| format!("`{}` is neither `changed` nor `all`", shown::brief(text)))
}

pub(super) fn bad(message: String) -> ConfigErrorKind {
    ConfigErrorKind::BadSetting { message }
}
