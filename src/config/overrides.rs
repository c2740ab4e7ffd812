//! `--set selection.ratio=0.3`: one value of the pipeline file, given on the command line.
//!
//! Overrides change the text before it is read, so they are held to the same rules as the file. The
//! lines of an error then count in the changed text; the name over the snippet says so.

use std::str::FromStr;

use serde_yaml::{Mapping, Value};

use super::error::{ConfigError, Problem};
use super::source::Source;
use super::suggest;

/// `ID.PARAMETER=VALUE`, `seed=VALUE` or `name=VALUE`; the value is YAML.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    given: String,
    path: Vec<String>,
    value: Value,
}

impl FromStr for Override {
    type Err = ConfigError;

    fn from_str(given: &str) -> Result<Self, ConfigError> {
        let problem = |message: String| Problem::Override {
            given: given.to_owned(),
            message,
            help: "write --set ID.PARAMETER=VALUE, as in --set selection.ratio=0.3, or --set seed=7"
                .to_owned(),
        };
        let (path, text) = given.split_once('=').ok_or_else(|| problem("there is no `=`".to_owned()))?;
        let value =
            serde_yaml::from_str(text).map_err(|error| problem(format!("the value is not YAML: {error}")))?;
        let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(problem("a name is missing before the `=`".to_owned()).into());
        }
        Ok(Self { given: given.to_owned(), path, value })
    }
}

/// The text with all overrides in it, the last one winning.
pub(super) fn apply(source: &Source, overrides: &[Override]) -> Result<Source, ConfigError> {
    let within = "the pipeline";
    let mut document: Value =
        serde_yaml::from_str(source.text()).map_err(|error| ConfigError::of_yaml(&error, source, within))?;
    for change in overrides {
        change.apply(&mut document)?;
    }
    let text =
        serde_yaml::to_string(&document).map_err(|error| ConfigError::of_yaml(&error, source, within))?;
    let given: Vec<_> = overrides.iter().map(|change| format!("--set {}", change.given)).collect();
    Ok(Source::new(format!("{} after {}", source.name(), given.join(" ")), text))
}

impl Override {
    fn apply(&self, document: &mut Value) -> Result<(), ConfigError> {
        let target = match self.path.as_slice() {
            [key] if key == "seed" || key == "name" => {
                document.as_mapping_mut().map(|map| map.entry(key.as_str().into()).or_insert(Value::Null))
            }
            [only] => {
                return Err(self.no_such(
                    only,
                    &["seed".to_owned(), "name".to_owned()],
                    "key of the pipeline",
                ));
            }
            [id, parameter @ ..] => self.parameter(document, id, parameter)?,
            [] => None,
        };
        // A file without the shape of a pipeline is refused with its line when it is read.
        if let Some(target) = target {
            *target = self.value.clone();
        }
        Ok(())
    }

    /// The place of a parameter; one that the file leaves at its default is added. Whether the stage
    /// knows it is found out when the text is read.
    fn parameter<'a>(
        &self,
        document: &'a mut Value,
        id: &str,
        parameter: &[String],
    ) -> Result<Option<&'a mut Value>, ConfigError> {
        let Some(stages) = document.get_mut("stages").and_then(Value::as_sequence_mut) else {
            return Ok(None);
        };
        let id_of = |stage: &Value| stage.get("id").and_then(Value::as_str).map(str::to_owned);
        let known: Vec<_> = stages.iter().filter_map(id_of).collect();
        let Some(stage) = stages.iter_mut().find(|stage| id_of(stage).as_deref() == Some(id)) else {
            return Err(self.no_such(id, &known, "stage"));
        };
        let Some(stage) = stage.as_mapping_mut() else { return Ok(None) };
        let mut place = stage.entry("with".into()).or_insert(Value::Mapping(Mapping::new()));
        for step in parameter {
            if place.is_null() {
                *place = Value::Mapping(Mapping::new());
            }
            place = match place {
                Value::Mapping(map) => map.entry(step.as_str().into()).or_insert(Value::Null),
                Value::Sequence(list) => {
                    let there = list.len();
                    step.parse::<usize>().ok().and_then(|index| list.get_mut(index)).ok_or_else(|| {
                        self.problem(
                            format!("`{step}` is no index of a list of {there}"),
                            "indices count from 0",
                        )
                    })?
                }
                _ => {
                    return Err(
                        self.problem(format!("there is nothing inside to be called `{step}`"), "drop it")
                    );
                }
            };
        }
        Ok(Some(place))
    }

    fn no_such(&self, found: &str, known: &[String], what: &str) -> ConfigError {
        self.problem(format!("there is no {what} `{found}`"), &suggest::help(found, known))
    }

    fn problem(&self, message: String, help: &str) -> ConfigError {
        Problem::Override { given: self.given.clone(), message, help: help.to_owned() }.into()
    }
}
