//! Refuses null (`null`, `~`, or nothing after the key) where a parameter needs a value. The YAML reader would give a
//! parameter of text the word `null`.
//!
//! Whether a parameter may be null is known by its type alone. So each null is read by itself from a tree of values, in
//! which null is not text.

use serde_yaml::{Mapping, Value};

use super::error::{ConfigError, ConfigErrorKind};
use super::grammar::Vocabulary;
use super::source_text::{Place, SourceText};
use super::survey;

/// Fails at the first null that is no value of its parameter. The text is a pipeline that the grammar has read.
pub(super) fn refuse<V: Vocabulary>(source: &SourceText) -> Result<(), ConfigError> {
    let nulls = survey::nulls(source.text());
    if nulls.is_empty() {
        return Ok(());
    }
    let document: Value = serde_yaml::from_str(source.text()).unwrap_or_default();
    let text =
        |stage: &Value, key: &str| stage.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    for path in nulls {
        let within = match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["name"] => "`name` of the pipeline".to_owned(),
            ["gates", ..] => "`gates` of the pipeline".to_owned(),
            ["stages", index, key @ ("id" | "use")] => format!("`{key}` of stage {}", ordinal(index)),
            ["stages", index, "with", parameter @ ..] if !parameter.is_empty() => {
                let stage = index.parse().ok().and_then(|index: usize| document.get("stages")?.get(index));
                let Some(stage) = stage.filter(|stage| !takes_null::<V>(&text(stage, "use"), parameter))
                else {
                    continue;
                };
                format!("`{}` of stage `{}`", parameter.join("."), text(stage, "id"))
            }
            // A swept value is checked in its combination, and the others by their types.
            _ => continue,
        };
        return Err(ConfigError::at(ConfigErrorKind::Null { within }, source, &Place::value(path)));
    }
    Ok(())
}

fn ordinal(index: &str) -> String {
    index.parse().map_or(String::new(), |index: usize| (index + 1).to_string())
}

/// Whether the type at this path inside the `with:` of a stage reads null.
fn takes_null<V: Vocabulary>(stage: &str, parameter: &[&str]) -> bool {
    let around = |inner: Value, step: &&str| match step.parse::<usize>() {
        Ok(_) => Value::Sequence(vec![inner]),
        Err(_) => Value::Mapping(Mapping::from_iter([(Value::from(*step), inner)])),
    };
    let block = parameter.iter().rev().fold(Value::Null, around);
    // Other parameters are missing, which is an error too, but not this one.
    V::deserialize(stage, block)
        .err()
        .is_none_or(|error: serde_yaml::Error| !error.to_string().contains("invalid type: unit value"))
}
