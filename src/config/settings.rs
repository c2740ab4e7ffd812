//! How to run on this machine: layers of settings, each overriding those before it.
//!
//! `settings.yaml` beside this file is the built-in layer and the documentation. Each layer is read by
//! itself before they are merged, so that an error names the layer, and in a file the line.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use figment::providers::Serialized;
use figment::value::{Dict, Value};
use figment::{Figment, Profile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duplicates;
use super::error::{ConfigError, ConfigErrorKind};
use super::source_text::SourceText;
use crate::backend::DeviceChoice;
use crate::base::units::Bytes;

/// The built-in settings, with their documentation.
pub const DEFAULTS: &str = include_str!("settings.yaml");

/// The prefix of environment variables. Never `LD_`: that would swallow `LD_LIBRARY_PATH`.
pub const PREFIX: &str = "LAPTOP_DIFF_";

/// The project's file, in the current directory.
pub const PROJECT_FILE: &str = "laptop-diff.yaml";

/// The effective settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Folder of the artefact cache.
    pub cache: PathBuf,
    /// Folder for run folders.
    pub runs: PathBuf,
    /// The device.
    pub device: DeviceChoice,
    /// Number of CPU threads; one per core if absent.
    pub threads: Option<NonZeroUsize>,
    /// Approximate memory budget; the system's free memory if absent.
    pub memory: Option<Bytes>,
}

/// The settings of one layer. Settings say how to run on this machine and never change a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Layer {
    /// Folder of the artefact cache. Default `.laptop-diff/cache`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Folder for run folders, one per pipeline name. Default `runs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<PathBuf>,
    /// Device: `auto`, `cpu` or `cuda:N`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = "^(auto|cpu|cuda|cuda:[0-9]+)$"))]
    pub device: Option<DeviceChoice>,
    /// Number of CPU threads. Default: one per core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<NonZeroUsize>,
    /// Approximate memory budget, such as `8 GB`. Default: the system's free memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^[0-9.]+ *([kKMGT]i?)?B$"))]
    pub memory: Option<Bytes>,
}

impl Settings {
    /// Reads all layers of this process; `flags` override all others.
    pub fn load(flags: Layer) -> Result<Self, ConfigError> {
        let environment: Vec<_> = std::env::vars().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        Self::from_layers(user_file().as_deref(), Path::new(PROJECT_FILE), &environment, flags)
    }

    fn from_layers(
        user: Option<&Path>,
        project: &Path,
        environment: &[(String, String)],
        flags: Layer,
    ) -> Result<Self, ConfigError> {
        let mut layers = vec![Layer::parse(&SourceText::new("the built-in settings", DEFAULTS))?];
        for file in user.into_iter().chain([project]) {
            layers.extend(Layer::read(file)?);
        }
        layers.push(Layer::from_environment(environment)?);
        layers.push(flags);
        let put = |figment: Figment, layer| figment.merge(Serialized::from(layer, Profile::Default));
        let whole = layers.into_iter().fold(Figment::new(), put).extract();
        Ok(whole.map_err(|error| bad("the settings", error.to_string()))?)
    }
}

impl Layer {
    /// A settings file; `None` if it does not exist.
    fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Some(Self::parse(&SourceText::new(path.display().to_string(), text))?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(bad(&path.display().to_string(), error.to_string()).into()),
        }
    }

    fn parse(source: &SourceText) -> Result<Self, ConfigError> {
        // A file that holds only comments is not a YAML document, but it is valid.
        if source.text().lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        duplicates::refuse(source)?;
        let layer: Result<Option<Self>, _> = serde_yaml::from_str(source.text());
        layer.map(Option::unwrap_or_default).map_err(|error| {
            ConfigError::of_yaml(&error, source, "the settings").map(|kind| match kind {
                ConfigErrorKind::UnknownKey { key, known, .. } => {
                    ConfigErrorKind::UnknownSetting { key, layer: source.name().to_owned(), known }
                }
                other => bad(source.name(), other.to_string()),
            })
        })
    }

    /// Environment variables, such as `LAPTOP_DIFF_CACHE=/scratch/cache`.
    fn from_environment(variables: &[(String, String)]) -> Result<Self, ConfigError> {
        let variable = |key: &str| format!("{PREFIX}{}", key.to_uppercase().replace('-', "_"));
        let value = |text: &str| text.parse().unwrap_or_else(|never| match never {});
        let pairs = variables.iter().filter_map(|(name, text)| {
            let key = name.strip_prefix(PREFIX)?.to_lowercase().replace('_', "-");
            Some((key, value(text)))
        });
        let dict: Dict = pairs.collect::<std::collections::BTreeMap<String, Value>>();
        let read = Figment::from(Serialized::from(dict, Profile::Default)).extract();
        read.map_err(|error: figment::Error| {
            let layer = "the environment".to_owned();
            let named = error.path.first().map(|key| variable(key));
            match error.kind {
                figment::error::Kind::UnknownField(key, known) => {
                    let known = known.iter().map(|key| variable(key)).collect();
                    ConfigErrorKind::UnknownSetting { key: variable(&key), layer, known }.into()
                }
                kind => bad(&named.unwrap_or(layer), kind.to_string()).into(),
            }
        })
    }
}

fn bad(layer: &str, message: String) -> ConfigErrorKind {
    ConfigErrorKind::BadSetting { message, layer: layer.to_owned() }
}

/// The path of the user's file, which need not exist.
fn user_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("laptop-diff/settings.yaml"))
}

#[cfg(test)]
mod tests {
    use miette::Diagnostic;

    use super::*;

    fn load(files: [&str; 2], environment: &[(&str, &str)], flags: Layer) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [user, project] = ["user.yaml", "project.yaml"].map(|name| folder.path().join(name));
        for (path, text) in [&user, &project].into_iter().zip(files) {
            fs::write(path, text).expect("it can be written to");
        }
        let environment: Vec<_> = environment.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Settings::from_layers(Some(&user), &project, &environment, flags)
    }

    #[test]
    fn the_built_in_file_gives_every_setting() {
        let settings = load(["", "# nothing\n"], &[], Layer::default()).expect("the defaults are right");
        assert_eq!(settings.cache, Path::new(".laptop-diff/cache"));
        assert_eq!((settings.device, settings.threads), (DeviceChoice::Auto, None));
        assert_eq!(settings.memory, None);
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
        assert_eq!((settings.threads.map(NonZeroUsize::get), settings.device), (Some(3), DeviceChoice::Cpu));
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
        let typo = [("LAPTOP_DIFF_THREDS", "2")];
        expect(
            ["", ""],
            &typo,
            unknown,
            &["`LAPTOP_DIFF_THREDS`", "the environment", "did you mean `LAPTOP_DIFF_THREADS`"],
        );
        expect(["device: gpu\n", ""], &[], "settings::bad_value", &["user.yaml", "`gpu` is not a device"]);
        expect(
            ["", ""],
            &[("LAPTOP_DIFF_DEVICE", "tpu")],
            "settings::bad_value",
            &["LAPTOP_DIFF_DEVICE", "`tpu`"],
        );
        expect(["memory: much\n", ""], &[], "settings::bad_value", &["user.yaml", "`much`", "8 GB"]);
        expect(["", ""], &[("LAPTOP_DIFF_THREADS", "0")], "settings::bad_value", &["LAPTOP_DIFF_THREADS"]);
        expect(["", "cache: a\ncache: b\n"], &[], "pipeline::duplicate_key", &["`cache`"]);
    }
}
