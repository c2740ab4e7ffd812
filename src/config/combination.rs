//! Sets one combination of swept values in the text of a file, and moves its errors to their places in the user's file.

use serde_yaml::Value;

use super::classify;
use super::error::{ConfigError, ConfigErrorKind};
use super::overrides;
use super::source_text::{Place, SourceText};
use super::sweep::Sweep;

/// The text with one combination set: `chosen` has the index of the value of each axis.
pub(super) fn set(source: &SourceText, sweep: &Sweep, chosen: &[usize]) -> Result<SourceText, ConfigError> {
    let mut document = sweep.rest.clone();
    for (axis, (values, &choice)) in sweep.axes.iter().zip(sweep.values.iter().zip(chosen)) {
        overrides::set(&mut document, &axis.steps(), values[choice].clone()).map_err(|misfit| {
            let message = format!("`sweep` over `{}`: {}", axis.parameter, misfit.message);
            let kind = ConfigErrorKind::Sweep { message, help: misfit.help };
            ConfigError::at(kind, source, &Place::value(["sweep", &axis.parameter]).key())
        })?;
    }
    let text =
        serde_yaml::to_string(&document).map_err(|error| classify::types(&error, source, "the pipeline"))?;
    Ok(SourceText::new(source.name(), text))
}

/// Moves an error in the text of a combination to the swept value in the file whose parameter it underlines.
pub(super) fn blame(
    error: ConfigError,
    source: &SourceText,
    set: &SourceText,
    sweep: &Sweep,
    chosen: &[usize],
) -> ConfigError {
    let found = error.position();
    let underlined = |axis: &usize| {
        let place = parameter_place(&sweep.axes[*axis].parameter, set);
        [place.clone().key(), place].iter().any(|place| Some(set.position(place)) == found)
    };
    let axes = 0..sweep.axes.len();
    let guilty = axes.clone().find(underlined).or((sweep.axes.len() == 1).then_some(0));
    let place = guilty.map_or(Place::value(["sweep"]).key(), |axis| {
        Place::value(["sweep", &sweep.axes[axis].parameter, &chosen[axis].to_string()])
    });
    let given =
        |axis: usize| format!("{}={}", sweep.axes[axis].parameter, sweep.axes[axis].values[chosen[axis]]);
    let combination = axes.map(given).collect::<Vec<_>>().join(" ");
    let tell = |kind| ConfigErrorKind::Combination { combination, kind: Box::new(kind) };
    error.moved(source, &place).map(tell)
}

/// The place of a swept parameter in the text of a combination.
fn parameter_place(parameter: &str, set: &SourceText) -> Place {
    let document: Value = serde_yaml::from_str(set.text()).unwrap_or_default();
    let stages = document.get("stages").and_then(Value::as_sequence);
    match parameter.split_once('.').zip(stages) {
        Some(((id, parameter), stages)) => {
            let named = |stage: &Value| stage.get("id").and_then(Value::as_str) == Some(id);
            Place::parameter(stages.iter().position(named).unwrap_or_default(), parameter)
        }
        None => Place::value([parameter]),
    }
}
