//! `--set selection.ratio=0.3` overrides one value of the pipeline file; `--over selection.ratio=0.3,0.5`
//! overrides one axis of its `sweep:`.
//!
//! Overrides change the text before it is read, so the same rules apply to them as to the file. The line
//! numbers of an error then refer to the changed text; the name above the snippet says so.

use serde_yaml::{Mapping, Value};

use super::error::{ConfigError, ConfigErrorKind};
use super::source_text::SourceText;
use super::{classify, limits};
use crate::base::{names, shown};

/// A change of the file, as a flag gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// The flag and what it was given.
    given: String,
    path: Vec<String>,
    change: Change,
}

#[derive(Clone, Debug, PartialEq)]
enum Change {
    Set(Value),
    Sweep(Value),
}

/// Why a value cannot be set.
pub(super) struct Misfit {
    pub(super) message: String,
    pub(super) help: String,
}

impl Override {
    /// `--set`: `ID.PARAMETER=VALUE`, `seed=VALUE` or `name=VALUE`; the value is YAML. It replaces an axis of
    /// `sweep:` for this parameter.
    pub fn set(given: &str) -> Result<Self, ConfigError> {
        let help = "write --set ID.PARAMETER=VALUE, as in --set selection.ratio=0.3, or --set seed=7";
        Self::read("--set", given, help, |value| {
            // Nothing is empty text; in YAML it would be null.
            let is_empty = value.trim().is_empty();
            Ok(Change::Set(if is_empty { Value::from("") } else { serde_yaml::from_str(value)? }))
        })
    }

    /// `--over`: `ID.PARAMETER=VALUE,VALUE,...`, or `seed=...`; the values are those of a YAML list.
    pub fn over(given: &str) -> Result<Self, ConfigError> {
        let help = "write --over ID.PARAMETER=VALUE,VALUE as in --over selection.ratio=0.3,0.5";
        let change = |list: &str| Ok(Change::Sweep(serde_yaml::from_str(&format!("[{list}]"))?));
        Self::read("--over", given, help, change)
    }

    fn read(
        flag: &str,
        given: &str,
        help: &str,
        change: impl FnOnce(&str) -> Result<Change, serde_yaml::Error>,
    ) -> Result<Self, ConfigError> {
        let flag = format!("{flag} {}", shown::brief(given));
        let kind =
            |message| ConfigErrorKind::Override { given: flag.clone(), message, help: help.to_owned() };
        let (path, text) = given.split_once('=').ok_or_else(|| kind("there is no `=`".to_owned()))?;
        if limits::too_deep(text).is_some() {
            return Err(kind(format!("the value is nested more than {} deep", limits::DEEPEST)).into());
        }
        let change = change(text).map_err(|error| kind(classify::of_value(&error)))?;
        let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(kind("a name is missing before the `=`".to_owned()).into());
        }
        Ok(Self { given: flag, path, change })
    }

    /// A value cannot be both set and swept, nor be a part of a swept value.
    fn refuse_overlap(&self, document: &Value, all: &[Self]) -> Result<(), ConfigError> {
        let Change::Set(_) = self.change else { return Ok(()) };
        let is_axis =
            |other: &&Self| matches!(other.change, Change::Sweep(_)) && overlap(&other.path, &self.path);
        let file = document.get("sweep").and_then(Value::as_mapping).into_iter().flat_map(Mapping::keys);
        let own = self.path.join(".");
        let within = file.filter_map(Value::as_str).find(|axis| {
            let path: Vec<String> = axis.split('.').map(str::to_owned).collect();
            *axis != own && overlap(&path, &self.path)
        });
        let by = all.iter().find(is_axis).map(|other| other.given.clone());
        let Some(by) = by.or(within.map(|axis| format!("sweep: {axis}"))) else { return Ok(()) };
        let message = format!("`{by}` already sweeps this value");
        let help = "keep one of the two".to_owned();
        Err(ConfigErrorKind::Override { given: self.given.clone(), message, help }.into())
    }

    fn apply(&self, document: &mut Value) -> Result<(), ConfigError> {
        let axis = Value::from(self.path.join("."));
        match &self.change {
            Change::Set(value) => {
                set(document, &self.path, value.clone()).map_err(|Misfit { message, help }| {
                    ConfigErrorKind::Override { given: self.given.clone(), message, help }
                })?;
                if let Some(Value::Mapping(sweep)) = document.get_mut("sweep") {
                    sweep.shift_remove(axis);
                    if sweep.is_empty() {
                        document.as_mapping_mut().map(|file| file.shift_remove("sweep"));
                    }
                }
            }
            Change::Sweep(values) => {
                let file = document.as_mapping_mut();
                let sweep = file.map(|file| file.entry("sweep".into()).or_insert(Mapping::new().into()));
                if let Some(Value::Mapping(sweep)) = sweep {
                    sweep.insert(axis, values.clone());
                }
            }
        }
        Ok(())
    }
}

/// The text with all overrides in it, the last one winning.
pub(super) fn apply(source: &SourceText, overrides: &[Override]) -> Result<SourceText, ConfigError> {
    let failed = |error| classify::types(&error, source, "the pipeline");
    let mut document: Value = serde_yaml::from_str(source.text()).map_err(failed)?;
    for change in overrides {
        change.refuse_overlap(&document, overrides)?;
    }
    for change in overrides {
        change.apply(&mut document)?;
    }
    let text = serde_yaml::to_string(&document).map_err(failed)?;
    let given: Vec<_> = overrides.iter().map(|change| change.given.as_str()).collect();
    Ok(SourceText::new(format!("{} after {}", source.name(), given.join(" ")), text))
}

/// Whether two paths lead to the same value, or one leads inside the value of the other.
pub(super) fn overlap(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Puts a value into the document. A document that is not a pipeline is left unchanged: reading it gives an error with a
/// line.
pub(super) fn set(document: &mut Value, path: &[String], value: Value) -> Result<(), Misfit> {
    let target = match path {
        [key] if key == "seed" || key == "name" => {
            document.as_mapping_mut().map(|map| map.entry(key.as_str().into()).or_insert(Value::Null))
        }
        [only] => {
            return Err(no_such(only, &["seed".to_owned(), "name".to_owned()], "key of the pipeline"));
        }
        [id, parameter @ ..] => self::parameter(document, id, parameter)?,
        [] => None,
    };
    if let Some(target) = target {
        *target = value;
    }
    Ok(())
}

/// The place of a parameter; one that the file does not give is added. Whether the stage has this parameter is checked
/// when the text is read.
fn parameter<'a>(
    document: &'a mut Value,
    id: &str,
    parameter: &[String],
) -> Result<Option<&'a mut Value>, Misfit> {
    let Some(stages) = document.get_mut("stages").and_then(Value::as_sequence_mut) else {
        return Ok(None);
    };
    let id_of = |stage: &Value| stage.get("id").and_then(Value::as_str).map(str::to_owned);
    let known: Vec<_> = stages.iter().filter_map(id_of).collect();
    let Some(stage) = stages.iter_mut().find(|stage| id_of(stage).as_deref() == Some(id)) else {
        return Err(no_such(id, &known, "stage"));
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
                let message = format!("`{step}` is not an index of a list of {}", list.len());
                let found = step.parse::<usize>().ok().and_then(|index| list.get_mut(index));
                found.ok_or(Misfit { message, help: "indices count from 0".to_owned() })?
            }
            _ => {
                let message = format!("this value is not a mapping, so it has no `{step}`");
                return Err(Misfit { message, help: "leave it out".to_owned() });
            }
        };
    }
    Ok(Some(place))
}

fn no_such(found: &str, known: &[String], what: &str) -> Misfit {
    Misfit { message: format!("there is no {what} `{found}`"), help: names::help(found, known) }
}
