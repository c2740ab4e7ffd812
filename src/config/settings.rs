//! How to run on this machine: layers of settings, each overriding those before it.
//!
//! `settings.yaml` beside this file is the built-in layer and the documentation. Each layer is read by
//! itself before they are merged, so that an error names the layer, and in a file the line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::providers::Serialized;
use figment::{Figment, Profile};
use serde::{Deserialize, Deserializer};

use super::error::ConfigError;
pub use super::layer::{Checkpoints, Jobs, Layer, Minutes, Steps, Threads};
use super::layer::{bad, unknown_variables};
use super::slurm::SlurmSettings;
use super::source_text::SourceText;
use crate::backend::DeviceChoice;
use crate::base::Server;
use crate::base::units::Bytes;
use crate::cache::{Address, Recheck, RemoteError, Shared};
use crate::train::TrainingSettings;

/// The built-in settings, with their documentation.
pub const DEFAULTS: &str = include_str!("settings.yaml");

/// The project's file, in the current directory.
pub const PROJECT_FILE: &str = "laptop-diff.yaml";

/// The effective settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Folder of the artefact cache.
    #[serde(deserialize_with = "path_of_bytes")]
    pub cache: PathBuf,
    /// Folder for run folders.
    #[serde(deserialize_with = "path_of_bytes")]
    pub runs: PathBuf,
    /// The device.
    pub device: DeviceChoice,
    /// Number of CPU threads; one per core if absent.
    pub threads: Option<Threads>,
    /// How many stages run at the same time.
    pub jobs: Jobs,
    /// Approximate memory budget; the system's free memory if absent.
    pub memory: Option<Bytes>,
    /// Which files are read again to check their digests.
    pub recheck: Recheck,
    /// Where artefacts are shared with other machines.
    pub remote: Option<Address>,
    /// The server of the remote, if it is not the usual one of its kind.
    pub remote_endpoint: Option<Server>,
    /// A checkpoint of a training after so many steps.
    pub checkpoint_every_steps: Option<Steps>,
    /// A checkpoint of a training after so many minutes.
    pub checkpoint_every_minutes: Option<Minutes>,
    /// How many checkpoints of a training are kept while it runs.
    pub keep_checkpoints: Checkpoints,
    /// Whether the state at the end of a training is kept.
    pub keep_training_state: bool,
    /// Whether trainings write event files for TensorBoard.
    pub tensorboard: bool,
    /// The MLflow server that receives runs and the branches of sweeps.
    pub mlflow: Option<Server>,
    /// What jobs ask of Slurm.
    pub slurm: SlurmSettings,
    /// A command for the shell when a run ends.
    pub on_end: Option<String>,
}

impl Settings {
    /// Reads all layers of this process; `flags` override all others. `note` receives what is odd but no error.
    pub fn load(flags: Layer, note: &mut dyn FnMut(&str)) -> Result<Self, ConfigError> {
        let environment: Vec<_> = std::env::vars_os().collect();
        unknown_variables(&environment).iter().for_each(|text| note(text));
        Self::from_layers(user_file().as_deref(), Path::new(PROJECT_FILE), &environment, flags)
    }

    fn from_layers(
        user: Option<&Path>,
        project: &Path,
        environment: &[(OsString, OsString)],
        flags: Layer,
    ) -> Result<Self, ConfigError> {
        let mut layers = vec![Layer::parse(&SourceText::new("the built-in settings", DEFAULTS))?];
        for file in user.into_iter().chain([project]) {
            layers.extend(Layer::read(file)?);
        }
        layers.extend([Layer::from_environment(environment)?, flags]);
        let put = |figment: Figment, layer| figment.merge(Serialized::from(layer, Profile::Default));
        let whole = layers.into_iter().fold(Figment::new(), put).extract();
        whole.map_err(|error| bad(error.to_string()).into())
    }
}

impl Settings {
    /// The remote of the cache, which is not asked yet; `None` if there is none.
    pub fn shared(&self) -> Result<Option<Shared>, RemoteError> {
        let endpoint = self.remote_endpoint.as_ref().map(Server::to_string);
        self.remote.clone().map(|address| Shared::new(address, endpoint)).transpose()
    }

    /// How trainings are kept and watched.
    pub fn training(&self) -> TrainingSettings {
        TrainingSettings {
            checkpoint_every_steps: self.checkpoint_every_steps.map(u64::from),
            checkpoint_every_minutes: self.checkpoint_every_minutes.map(u64::from),
            keep_checkpoints: self.keep_checkpoints.get(),
            keep_state: self.keep_training_state,
            tensorboard: self.tensorboard,
        }
    }
}

/// Paths go through figment as bytes, since they need not be UTF-8.
fn path_of_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    OsString::deserialize(deserializer).map(PathBuf::from)
}

/// The path of the user's file, which need not exist.
fn user_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("laptop-diff/settings.yaml"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStringExt;

    use miette::Diagnostic;

    use super::*;

    fn load(files: [&str; 2], environment: &[(&str, &str)], flags: Layer) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [user, project] = ["user.yaml", "project.yaml"].map(|name| folder.path().join(name));
        for (path, text) in [&user, &project].into_iter().zip(files) {
            fs::write(path, text).expect("it can be written to");
        }
        let environment: Vec<_> = environment.iter().map(|&(k, v)| (k.into(), v.into())).collect();
        Settings::from_layers(Some(&user), &project, &environment, flags)
    }

    #[test]
    fn the_built_in_file_gives_every_setting() {
        let settings = load(["", "# nothing\n"], &[], Layer::default()).expect("the defaults are right");
        assert_eq!(settings.cache, Path::new(".laptop-diff/cache"));
        assert_eq!((settings.device, settings.threads), (DeviceChoice::Auto, None));
        assert_eq!((settings.memory, settings.recheck), (None, Recheck::Changed));
        assert_eq!((settings.jobs.get(), &settings.remote, &settings.remote_endpoint), (1, &None, &None));
        let training = TrainingSettings {
            checkpoint_every_steps: None,
            checkpoint_every_minutes: None,
            keep_checkpoints: 2,
            keep_state: true,
            tensorboard: false,
        };
        assert_eq!(settings.training(), training);
    }

    #[test]
    fn the_stronger_layer_wins() {
        let files = ["cache: /user\nruns: /user\nthreads: 1\ndevice: cpu\n", "cache: /project\nthreads: 2\n"];
        let flags = Layer { cache: Some("/flag".into()), ..Layer::default() };
        let environment =
            [("LAPTOP_DIFF_THREADS", "3"), ("LAPTOP_DIFF_CACHE", "/env"), ("LAPTOP_DIFF_MEMORY", "8 GB")];
        let settings = load(files, &environment, flags);
        let settings = settings.expect("all layers are right");
        assert_eq!((settings.cache, settings.runs), ("/flag".into(), "/user".into()));
        assert_eq!((settings.threads.map(Threads::get), settings.device), (Some(3), DeviceChoice::Cpu));
        assert_eq!(settings.memory, Some(Bytes(8_000_000_000)));
    }

    #[track_caller]
    fn expect(files: [&str; 2], environment: &[(&str, &str)], code: &str, words: &[&str]) {
        let error = load(files, environment, Layer::default()).expect_err("the settings are wrong");
        assert_eq!(error.code().map(|code| code.to_string()).as_deref(), Some(code), "{error}");
        let text = format!("{error}; {}", error.help().map(|help| help.to_string()).unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    }

    #[test]
    fn a_mistake_names_its_layer() {
        let unknown = "settings::unknown_key";
        expect(["", "cahce: x\n"], &[], unknown, &["`cahce`", "project.yaml", "did you mean `cache`"]);
        expect(["device: gpu\n", ""], &[], "settings::bad_value", &["user.yaml", "`gpu` is not a device"]);
        expect(
            ["", ""],
            &[("LAPTOP_DIFF_DEVICE", "tpu")],
            "settings::bad_value",
            &["LAPTOP_DIFF_DEVICE", "`tpu`"],
        );
        expect(["memory: much\n", ""], &[], "settings::bad_value", &["user.yaml", "`much`", "8 GB"]);
        for (file, words) in [
            ("memory: 8", ["`memory` of", "`8` is not an amount", "8 GB"]),
            ("threads: -1", ["`threads` of", "`-1`", "a whole number from 1 to 4096"]),
            ("device: 3", ["`device` of", "`3` is not a device", "cuda:N"]),
            ("cache: [a]", ["`cache` of", "a list", "text"]),
            ("keep-checkpoints: 0", ["`keep-checkpoints` of", "`0`", "a whole number from 1 to 1000"]),
            ("remote: ftp://lab", ["`remote` of", "a folder or a bucket", "s3://BUCKET/PREFIX"]),
            ("mlflow: localhost", ["`mlflow` of", "`localhost` is not the address", "http://127.0.0.1:5000"]),
        ] {
            expect(["", file], &[], "settings::bad_value", &[&words[..], &["project.yaml"]].concat());
        }
        for value in ["0", "-1", "many", "1000000", "18446744073709551616"] {
            let words = ["LAPTOP_DIFF_THREADS", &format!("`{value}`"), "a whole number from 1 to 4096"];
            expect(["", ""], &[("LAPTOP_DIFF_THREADS", value)], "settings::bad_value", &words);
        }
        let memory = [("LAPTOP_DIFF_MEMORY", "8")];
        expect(["", ""], &memory, "settings::bad_value", &["LAPTOP_DIFF_MEMORY", "`8`", "8 GB"]);
        expect(["", "a: [b"], &[], "pipeline::syntax", &["not YAML"]);
        expect(["", "cache: a\ncache: b\n"], &[], "pipeline::duplicate_key", &["`cache`"]);
    }

    #[test]
    fn a_variable_is_read_as_what_it_is() {
        let environment =
            [("LAPTOP_DIFF_CACHE", "123"), ("LAPTOP_DIFF_RUNS", ""), ("LAPTOP_DIFF_THREADS", "3")];
        let settings =
            load(["", ""], &environment, Layer::default()).expect("numbers are names of folders too");
        assert_eq!((settings.cache, settings.runs), ("123".into(), "runs".into()));
        let all = load(["", "recheck: changed"], &[("LAPTOP_DIFF_RECHECK", "all")], Layer::default());
        assert_eq!(all.map(|settings| settings.recheck).ok(), Some(Recheck::All));
        let (never, words) =
            ([("LAPTOP_DIFF_RECHECK", "never")], ["RECHECK", "`never`", "`changed`", "`all`"]);
        expect(["", ""], &never, "settings::bad_value", &words);
        assert_eq!(settings.threads.map(Threads::get), Some(3));
    }

    #[test]
    fn a_variable_of_somebody_else_is_noted() {
        let latin = OsString::from_vec(b"caf\xe9".to_vec());
        let variables = |names: &[&str]| -> Vec<_> {
            names.iter().map(|&name| (OsString::from(name), latin.clone())).collect()
        };
        let notes = unknown_variables(&variables(&["LAPTOP_DIFF_THREDS", "LAPTOP_DIFF_CACHE", "HOME"]));
        assert_eq!(notes.len(), 1, "{notes:?}");
        for word in ["`LAPTOP_DIFF_THREDS`", "did you mean `LAPTOP_DIFF_THREADS`", "`LAPTOP_DIFF_MEMORY`"] {
            assert!(notes[0].contains(word), "{word:?} is not in {notes:?}");
        }
        let layer = Layer::from_environment(&variables(&["LAPTOP_DIFF_CACHE", "LAPTOP_DIFF_THREDS"]));
        assert_eq!(layer.expect("a path is any bytes").cache, Some(latin.clone().into()));
        let settings = Settings::from_layers(
            None,
            Path::new("absent"),
            &variables(&["LAPTOP_DIFF_RUNS"]),
            Layer { cache: Some(latin.clone().into()), ..Layer::default() },
        );
        let settings = settings.expect("paths are any bytes");
        assert_eq!((settings.cache, settings.runs), (latin.clone().into(), latin.clone().into()));
        let error = Layer::from_environment(&variables(&["LAPTOP_DIFF_DEVICE"])).expect_err("no device");
        assert!(error.to_string().contains("LAPTOP_DIFF_DEVICE: its value is not UTF-8"), "{error}");
    }
}
