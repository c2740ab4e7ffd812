//! `sweep:` makes one pipeline of all combinations of some parameters' values.
//!
//! Each combination is the file with these values set, read and checked like any other. A stage that no swept parameter
//! reaches, directly or through what it reads, is the same in every combination and is kept once. The others are kept
//! once for each combination of the axes that do reach them, under an id that says which: `student@ratio=0.3`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::error::{ConfigError, ConfigErrorKind};
use super::overrides;
use super::pipeline::{Pipeline, StageEntry};
use super::source_text::{Place, SourceText};
use crate::base::Digest;

/// Longer values are cut and made distinct by their hash, so that an id stays readable.
const LONGEST_VALUE: usize = 24;

/// An id stays below this. The longest name of a folder on common file systems is 255 bytes.
const LONGEST_ID: usize = 200;

/// A swept parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// The parameter: `selection.ratio`, or `seed`.
    pub parameter: String,
    /// What ids and tables call it: its last word, or as many as tell it from the other axes.
    pub name: String,
    /// Its values as ids and tables show them, in the order of the file.
    pub values: Vec<String>,
}

/// The values that a stage depends on, by the names of their axes. Empty outside of a sweep, and for shared stages.
pub type Branch = BTreeMap<String, String>;

/// How many combinations of their values axes have; one without any.
pub fn combinations(axes: &[Axis]) -> usize {
    axes.iter().map(|axis| axis.values.len()).product()
}

/// The block as it was read.
pub(super) struct Sweep {
    pub(super) axes: Vec<Axis>,
    values: Vec<Vec<Value>>,
}

impl Sweep {
    /// The sweep of a file, if it has one.
    pub(super) fn read(source: &SourceText) -> Result<Option<Self>, ConfigError> {
        let Ok(document) = serde_yaml::from_str::<Value>(source.text()) else { return Ok(None) };
        let axes = match document.get("sweep") {
            None => return Ok(None),
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
        let mut sweep = Self { axes: Vec::new(), values: Vec::new() };
        for (key, values) in axes {
            let parameter = key.as_str().unwrap_or_default();
            let failed = |message: String, place: Place| {
                let message = format!("`sweep` over `{parameter}`: {message}");
                Err(ConfigError::at(ConfigErrorKind::sweep(message), source, &place))
            };
            let place = Place::value(["sweep", parameter]);
            if parameter != "seed" && !parameter.contains('.') {
                return failed("this names no parameter of a stage".to_owned(), place.key());
            }
            if steps(parameter).iter().any(String::is_empty) {
                return failed("a name is missing beside a dot".to_owned(), place.key());
            }
            if let Some(other) = sweep
                .axes
                .iter()
                .find(|other| overrides::overlap(&steps(&other.parameter), &steps(parameter)))
            {
                return failed(
                    format!("`{}`, which is swept too, is of the same value", other.parameter),
                    place.key(),
                );
            }
            let Value::Sequence(values) = values else {
                return failed("its values are not a list".to_owned(), place);
            };
            if values.is_empty() {
                return failed("the list of values is empty".to_owned(), place);
            }
            let mut shown = Vec::new();
            for (index, value) in values.iter().enumerate() {
                let text = show(value);
                if shown.contains(&text) {
                    let place = Place::value(["sweep", parameter, &index.to_string()]);
                    return failed(format!("`{text}` is there twice"), place);
                }
                shown.push(text);
            }
            sweep.axes.push(Axis { parameter: parameter.to_owned(), name: String::new(), values: shown });
            sweep.values.push(values.clone());
        }
        let parameters: Vec<_> = sweep.axes.iter().map(|axis| axis.parameter.clone()).collect();
        for axis in &mut sweep.axes {
            axis.name = fit(&shortest(&axis.parameter, &parameters), LONGEST_ID);
        }
        Ok(Some(sweep))
    }

    /// The stages of all combinations, each once. `read` reads and checks the file as it is with one combination.
    pub(super) fn expand(
        &self,
        source: &SourceText,
        read: impl Fn(SourceText) -> Result<Pipeline, ConfigError>,
    ) -> Result<Pipeline, ConfigError> {
        let (mut whole, mut stages, mut known) = (None, Vec::new(), HashSet::new());
        // What no axis reaches is taken from the file itself: in what is written anew a text such as `1.10` is 1.1.
        let plain = read(source.clone()).map(|pipeline| pipeline.stages).unwrap_or_default();
        let mut plain: Vec<_> = plain.into_iter().map(Some).collect();
        for number in 0..combinations(&self.axes) {
            let chosen = self.combination(number);
            let set = self.set(source, &chosen)?;
            let mut one = read(set.clone()).map_err(|error| match read(source.clone()) {
                // What is wrong without the sweep too has its own place in the file.
                Err(own) if own.to_string() == error.to_string() => own,
                _ => self.blame(error, source, &set, &chosen),
            })?;
            for (index, axes) in self.reached(&one.stages).into_iter().enumerate().rev() {
                let mut entry = one.stages.remove(index);
                if axes.is_empty() {
                    entry = plain.get_mut(index).and_then(Option::take).unwrap_or(entry);
                }
                entry.branch = axes.into_iter().map(|axis| self.choice(axis, &chosen)).collect();
                entry.id = branch_id(&entry.origin, &entry.branch).into();
                if known.insert(entry.id.clone()) {
                    stages.push((number, entry));
                }
            }
            whole.get_or_insert(one);
        }
        // Combination by combination, so that the first results come early; in each the file's order.
        stages.sort_by_key(|(number, entry)| (*number, entry.position));
        let whole = whole.expect("no axis is empty, so there is a combination");
        let stages = stages.into_iter().map(|(_, entry)| entry).collect();
        Ok(whole.with_sweep(stages, self.axes.clone(), source.clone()))
    }

    /// Which value each axis has in the combination with this number; the last axis moves fastest.
    fn combination(&self, mut number: usize) -> Vec<usize> {
        let mut chosen = vec![0; self.axes.len()];
        for (place, values) in chosen.iter_mut().zip(&self.values).rev() {
            *place = number % values.len();
            number /= values.len();
        }
        chosen
    }

    fn choice(&self, axis: usize, chosen: &[usize]) -> (String, String) {
        let found = &self.axes[axis];
        (found.name.clone(), found.values[chosen[axis]].clone())
    }

    /// The text with one combination in it.
    fn set(&self, source: &SourceText, chosen: &[usize]) -> Result<SourceText, ConfigError> {
        let within = "the pipeline";
        let failed = |error| ConfigError::of_yaml(&error, source, within);
        let mut document: Value = serde_yaml::from_str(source.text()).map_err(failed)?;
        for (axis, (values, &choice)) in self.axes.iter().zip(self.values.iter().zip(chosen)) {
            overrides::set(&mut document, &steps(&axis.parameter), values[choice].clone()).map_err(
                |misfit| {
                    let message = format!("`sweep` over `{}`: {}", axis.parameter, misfit.message);
                    let kind = ConfigErrorKind::Sweep { message, help: misfit.help };
                    ConfigError::at(kind, source, &Place::value(["sweep", &axis.parameter]).key())
                },
            )?;
        }
        Ok(SourceText::new(source.name(), serde_yaml::to_string(&document).map_err(failed)?))
    }

    /// An error in the text of a combination, told of the file: at the value whose parameter it underlines.
    fn blame(
        &self,
        error: ConfigError,
        source: &SourceText,
        set: &SourceText,
        chosen: &[usize],
    ) -> ConfigError {
        let found = error.position();
        let underlined = |axis: &usize| {
            let place = parameter_place(&self.axes[*axis].parameter, set);
            [place.clone().key(), place].iter().any(|place| Some(set.position(place)) == found)
        };
        let axes = 0..self.axes.len();
        let guilty = axes.clone().find(underlined).or((self.axes.len() == 1).then_some(0));
        let place = guilty.map_or(Place::value(["sweep"]).key(), |axis| {
            Place::value(["sweep", &self.axes[axis].parameter, &chosen[axis].to_string()])
        });
        let given =
            |axis: usize| format!("{}={}", self.axes[axis].parameter, self.axes[axis].values[chosen[axis]]);
        let combination = axes.map(given).collect::<Vec<_>>().join(" ");
        let tell = |kind| ConfigErrorKind::Combination { combination, kind: Box::new(kind) };
        error.moved(source, &place).map(tell)
    }

    /// The axes that reach each stage.
    fn reached(&self, stages: &[StageEntry]) -> Vec<BTreeSet<usize>> {
        let own = |entry: &StageEntry| {
            let axes = self.axes.iter().enumerate();
            let own = axes.filter(|(_, axis)| match steps(&axis.parameter).as_slice() {
                [_] => entry.stage.info().seeded,
                parts => parts[0] == entry.origin.as_str(),
            });
            own.map(|(index, _)| index).collect::<BTreeSet<_>>()
        };
        let mut reached: Vec<_> = stages.iter().map(own).collect();
        // Stages may stand in any order, and references may be wrong or circular: that is found out later.
        loop {
            let mut grown = reached.clone();
            for (reader, entry) in stages.iter().enumerate() {
                for input in entry.stage.inputs() {
                    let from = stages.iter().position(|other| other.origin == *input.stage);
                    grown[reader].extend(from.map(|from| reached[from].clone()).unwrap_or_default());
                }
            }
            if grown == reached {
                return reached;
            }
            reached = grown;
        }
    }
}

fn steps(parameter: &str) -> Vec<String> {
    parameter.split('.').map(str::to_owned).collect()
}

/// Where a swept parameter stands in the text of a combination.
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

/// The shortest end of `parameter`, in whole words, that no other of `all` has.
fn shortest(parameter: &str, all: &[String]) -> String {
    let words: Vec<&str> = parameter.split('.').collect();
    let ends = (0..words.len()).rev().map(|start| words[start..].join("."));
    let alone = |end: &String| {
        let tail = format!(".{end}");
        all.iter().filter(|other| *other == end || other.ends_with(&tail)).count() == 1
    };
    ends.into_iter().find(alone).unwrap_or_else(|| parameter.to_owned())
}

/// A value as it stands in ids: as in the file where that can be part of a folder's name.
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

/// A text where it can be part of a folder's name and is no longer than this, else what is left of it and its hash.
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

/// `student@criterion=magnitude,ratio=0.3`: axes by name, so that their order in the file says nothing.
fn branch_id(origin: &crate::base::StageId, branch: &Branch) -> String {
    if branch.is_empty() {
        return origin.to_string();
    }
    let values: Vec<_> = branch.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
    let id = format!("{origin}@{}", values.join(","));
    if id.len() <= LONGEST_ID { id } else { format!("{origin}@{}", Digest::of(id.as_bytes()).short()) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse;
    use super::*;
    use miette::Diagnostic;

    const TEXT: &str = "\
format: 1
name: small
seed: 1
stages:
  - { id: m, use: load, with: { model: nano } }
  - { id: first, use: select, with: { model: m } }
  - { id: second, use: select, with: { model: m, after: first } }
  - { id: e, use: evaluate, with: { models: { model: m } } }
";

    fn ids(sweep: &str) -> Vec<String> {
        let pipeline = parse(&format!("{TEXT}sweep:\n{sweep}")).expect("the sweep is right");
        pipeline.stages.iter().map(|entry| entry.id.to_string()).collect()
    }

    #[test]
    fn a_stage_is_there_once_for_each_choice_of_what_reaches_it() {
        assert_eq!(
            ids("  first.ratio: [0.3, 0.70]\n"),
            ["m", "first@ratio=0.3", "second@ratio=0.3", "e", "first@ratio=0.7", "second@ratio=0.7"]
        );
        // Two axes of one name are told apart; the second does not reach the first stage.
        let both = ids("  second.ratio: [0.1, 0.2, 0.4]\n  first.ratio: [0.3, 0.5]\n");
        assert_eq!(both.len(), 2 + 2 + 6);
        assert!(both.contains(&"second@first.ratio=0.5,second.ratio=0.4".to_owned()), "{both:?}");
        assert_eq!(both.iter().filter(|id| id.starts_with("first@")).count(), 2);
        // A seed reaches what draws random numbers, and what reads that.
        assert_eq!(ids("  seed: [1, 2]\n").len(), 2 + 2 + 2);
    }

    #[test]
    fn a_value_more_and_the_order_of_axes_and_values_change_no_id() {
        let one = ids("  first.ratio: [0.3]\n  m.dtype: [f32, bf16]\n");
        let other = ids("  m.dtype: [bf16, f32]\n  first.ratio: [0.5, 0.3]\n");
        assert!(one.iter().all(|id| other.contains(id)), "{one:?} {other:?}");
        assert!(one.contains(&"first@dtype=bf16,ratio=0.3".to_owned()));
    }

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
        let long = branch_id(&"a".into(), &BTreeMap::from([("b".repeat(250), "1".to_owned())]));
        assert!(long.len() < 20 && long.starts_with("a@"), "{long}");
        let names = ["first.with.a/b", "first.with.a b", "first.with.ü"]
            .map(|name| fit(&shortest(name, &[name.to_owned()]), LONGEST_ID));
        assert!(names[0].starts_with("a-b~") && names[2].starts_with('~'), "{names:?}");
        assert_ne!(names[0], names[1]);
    }

    #[test]
    fn what_no_axis_reaches_is_as_the_file_has_it() {
        let text = TEXT.replace("model: nano }", "model: 1.10 }");
        let pipeline = parse(&format!("{text}sweep: {{ first.ratio: [0.3, 0.4] }}\n")).expect("it is right");
        let files = pipeline.stages[0].stage.files();
        assert_eq!(files[0].path, std::path::Path::new("1.10"));
        assert_eq!(pipeline.stages.len(), 2 + 2 * 2);
    }

    #[test]
    fn a_place_inside_of_a_swept_value_is_found() {
        let sweep = "sweep:\n  e.models: [{ model: m }, { other: m, model: m }]\n";
        let pipeline = parse(&format!("{TEXT}{sweep}")).expect("it is right");
        let last = pipeline.stages.len() - 1;
        assert_eq!(pipeline.place(last, "models.other"), Place::value(["sweep", "e.models", "1", "other"]));
        assert_eq!(pipeline.place(1, "ratio"), Place::parameter(1, "ratio"));
    }

    #[track_caller]
    fn wrong(sweep: &str, code: &str, place: (usize, usize), words: &[&str]) {
        let error = parse(&format!("{TEXT}sweep:\n{sweep}")).err().expect("the sweep is wrong");
        let text = format!("{error}; {}", error.help().map(|help| help.to_string()).unwrap_or_default());
        assert_eq!(error.code().map(|code| code.to_string()).as_deref(), Some(code), "{text}");
        assert_eq!(error.position(), Some(place), "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {text:?}"));
    }

    #[test]
    fn a_wrong_axis_is_underlined() {
        let (sweep, combination) = ("pipeline::sweep", "pipeline::combination");
        wrong("  frist.ratio: [0.3]\n", sweep, (10, 3), &["`frist.ratio`", "did you mean `first`"]);
        wrong("  ratio: [0.3]\n", sweep, (10, 3), &["`ratio`", "selection.ratio"]);
        wrong("  first.ratio: []\n", sweep, (10, 16), &["is empty"]);
        wrong("  first.ratio: 0.3\n", sweep, (10, 16), &["not a list"]);
        wrong("  first.ratio: [0.3, 0.30]\n", sweep, (10, 22), &["`0.3` is there twice"]);
        wrong("  first..ratio: [0.3]\n", sweep, (10, 3), &["a name is missing"]);
        let both = "  e.models: [{ model: m }]\n  e.models.model: [m]\n";
        wrong(both, sweep, (11, 3), &["`e.models.model`", "`e.models`, which is swept too"]);
        wrong("  [0.3]\n", sweep, (10, 3), &["not a mapping"]);
        wrong(
            "  first.rato: [0.3]\n",
            combination,
            (10, 16),
            &["did you mean `ratio`", "with first.rato=0.3"],
        );
        wrong(
            "  m.dtype: [f32, bf15]\n",
            combination,
            (10, 18),
            &["did you mean `bf16`", "with m.dtype=bf15"],
        );
        let two = "  second.ratio: [0.5, 0.6]\n  first.ratio: [0.3, 1.5]\n";
        wrong(two, combination, (11, 22), &["`ratio` is 1.5", "with second.ratio=0.5 first.ratio=1.5"]);
        wrong("  first.ratio: [0.3]\n  first.ratio: [0.4]\n", "pipeline::duplicate_key", (11, 3), &[]);
    }

    #[test]
    fn what_is_wrong_without_the_sweep_is_told_without_it() {
        let text = format!("{}sweep: {{ first.ratio: [0.3] }}\n", TEXT.replace("seed: 1", "sede: 1"));
        let error = parse(&text).err().expect("a key is wrong");
        assert_eq!(
            (error.position(), error.to_string()),
            (Some((3, 1)), "unknown key `sede` in the pipeline".to_owned())
        );
    }
}
