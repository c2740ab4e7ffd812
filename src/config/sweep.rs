//! `sweep:` as data: the parameters to vary and their values. [`crate::plan`] expands it.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::classify;
use super::error::{ConfigError, ConfigErrorKind};
use super::limits::MOST_COMBINATIONS;
use super::overrides::overlap;
use super::source_text::{Place, SourceText};
use crate::base::Digest;

/// Longer values are truncated and get a hash that keeps them distinct, so that ids stay readable.
const LONGEST_VALUE: usize = 24;

/// The longest name of an axis. Common file systems limit the name of a folder to 255 bytes.
const LONGEST_NAME: usize = 200;

/// A swept parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// The parameter: `selection.ratio`, or `seed`.
    pub parameter: String,
    /// Its name in ids and tables: the last word of the parameter, or more words if other axes end with the same.
    pub name: String,
    /// Its values as shown in ids and tables, in the order of the file.
    pub values: Vec<String>,
}

impl Axis {
    /// The parameter, step by step.
    pub(super) fn steps(&self) -> Vec<String> {
        steps(&self.parameter)
    }
}

/// The number of combinations of the axes' values; 1 if there are no axes.
pub fn combinations(axes: &[Axis]) -> usize {
    axes.iter().fold(1, |count, axis| count.saturating_mul(axis.values.len()))
}

/// The `sweep:` of a file.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// The swept parameters in the order of the file; empty if the file has no `sweep:`.
    pub axes: Vec<Axis>,
    /// Their values as read.
    pub(super) values: Vec<Vec<Value>>,
    /// The document without its `sweep:`, which each combination begins with.
    pub(super) rest: Value,
}

impl Sweep {
    pub(super) fn read(source: &SourceText) -> Result<Self, ConfigError> {
        let mut sweep = Self::default();
        let mut document: Value = serde_yaml::from_str(source.text())
            .map_err(|error| classify::types(&error, source, "the pipeline"))?;
        let axes = match document.as_mapping_mut().and_then(|map| map.shift_remove("sweep")) {
            None => return Ok(sweep),
            Some(Value::Mapping(axes)) if !axes.is_empty() => axes,
            Some(_) => {
                let message = "`sweep` is not a mapping of parameters to lists of values".to_owned();
                return Err(ConfigError::at(
                    ConfigErrorKind::sweep(message),
                    source,
                    &Place::value(["sweep"]),
                ));
            }
        };
        sweep.rest = document;
        for (key, values) in &axes {
            let parameter = key.as_str().unwrap_or_default();
            let (axis, values) = sweep.axis(parameter, values).map_err(|(message, place)| {
                let message = format!("`sweep` over `{parameter}`: {message}");
                ConfigError::at(ConfigErrorKind::sweep(message), source, &place)
            })?;
            sweep.axes.push(axis);
            sweep.values.push(values);
        }
        let count =
            sweep.axes.iter().fold(1, |count: u128, axis| count.saturating_mul(axis.values.len() as u128));
        if count > MOST_COMBINATIONS as u128 {
            let kind = ConfigErrorKind::TooManyCombinations { count, most: MOST_COMBINATIONS };
            return Err(ConfigError::at(kind, source, &Place::value(["sweep"]).key()));
        }
        let parameters: Vec<_> = sweep.axes.iter().map(|axis| axis.parameter.clone()).collect();
        for axis in &mut sweep.axes {
            axis.name = fit(&shortest(&axis.parameter, &parameters), LONGEST_NAME);
        }
        Ok(sweep)
    }

    /// Reads an axis, still without its name. An error has a message and a place.
    fn axis(&self, parameter: &str, values: &Value) -> Result<(Axis, Vec<Value>), (String, Place)> {
        let place = Place::value(["sweep", parameter]);
        if parameter != "seed" && !parameter.contains('.') {
            return Err(("this is not a parameter of a stage".to_owned(), place.key()));
        }
        let path = steps(parameter);
        if path.iter().any(String::is_empty) {
            return Err(("a name is missing beside a dot".to_owned(), place.key()));
        }
        if let Some(other) = self.axes.iter().find(|other| overlap(&other.steps(), &path)) {
            let message = format!("`{}` is swept too and overlaps with it", other.parameter);
            return Err((message, place.key()));
        }
        let Value::Sequence(values) = values else {
            return Err(("its values are not a list".to_owned(), place));
        };
        if values.is_empty() {
            return Err(("the list of values is empty".to_owned(), place));
        }
        let (mut shown, mut seen) = (Vec::new(), HashSet::new());
        for (index, value) in values.iter().enumerate() {
            let text = show(value);
            if !seen.insert(text.clone()) {
                let place = Place::value(["sweep", parameter, &index.to_string()]);
                return Err((format!("`{text}` is given twice"), place));
            }
            shown.push(text);
        }
        let axis = Axis { parameter: parameter.to_owned(), name: String::new(), values: shown };
        Ok((axis, values.clone()))
    }
}

fn steps(parameter: &str) -> Vec<String> {
    parameter.split('.').map(str::to_owned).collect()
}

/// The fewest last words of `parameter` that no other parameter in `all` ends with.
fn shortest(parameter: &str, all: &[String]) -> String {
    let words: Vec<&str> = parameter.split('.').collect();
    let ends = (0..words.len()).rev().map(|start| words[start..].join("."));
    let alone = |end: &String| {
        let tail = format!(".{end}");
        all.iter().filter(|other| *other == end || other.ends_with(&tail)).count() == 1
    };
    ends.into_iter().find(alone).unwrap_or_else(|| parameter.to_owned())
}

/// A value as shown in ids: as in the file, if that can be part of a folder's name.
fn show(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => {
            serde_yaml::to_string(value).unwrap_or_default().trim_end().to_owned()
        }
        _ => serde_json::to_string(value).unwrap_or_default(),
    };
    fit(&text, LONGEST_VALUE)
}

/// The text itself, if it can be part of a folder's name and is not longer than `longest`. Otherwise its allowed
/// characters, truncated, with its hash.
fn fit(text: &str, longest: usize) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if !text.is_empty() && text.len() <= longest && text.chars().all(fits) {
        return text.to_owned();
    }
    let plain: String = text.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let words: Vec<_> = plain.split('-').filter(|word| !word.is_empty()).collect();
    let start: String = words.join("-").chars().take(longest - 9).collect();
    format!("{start}~{}", &Digest::of(text.as_bytes()).short()[..8])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn any_value_can_be_part_of_a_folders_name() {
        let shown = |text: &str| show(&serde_yaml::from_str(text).expect("YAML"));
        for plain in ["0.3", "0.001", "true", "output-loss", "model.safetensors", "-3"] {
            assert_eq!(shown(plain), plain);
        }
        assert_eq!(shown("5.0e-1"), "0.5");
        let lists =
            ["[output-loss, magnitude]", "[output-loss, random]", "../a/b", "'x y'", "''", "null"].map(shown);
        assert!(lists[0].starts_with("output-loss-mag~"), "{}", lists[0]);
        assert_eq!(lists.iter().collect::<BTreeSet<_>>().len(), lists.len());
        let names = ["first.with.a/b", "first.with.a b", "first.with.ü"]
            .map(|name| fit(&shortest(name, &[name.to_owned()]), LONGEST_NAME));
        assert!(names[0].starts_with("a-b~") && names[2].starts_with('~'), "{names:?}");
        assert_ne!(names[0], names[1]);
    }
}
