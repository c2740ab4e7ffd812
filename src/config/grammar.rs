//! The grammar of a pipeline file, read from YAML straight into types, so that every error keeps its line.
//!
//! Two steps cannot be derived: `with` is read into the type that `use` names, and the error of an
//! unknown key lists the known ones.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::{ConfigError, ConfigErrorKind};
use super::pipeline::{FORMAT, Pipeline, StageEntry};
use super::source_text::{Place, SourceText};
use super::{classify, renamed};
use crate::base::shown;
use crate::stage::{self, STAGES, Stage};

/// The names that `use:` knows. A trait, so that the grammar can be tested with small stages.
pub(super) trait Vocabulary {
    fn names() -> Vec<String>;
    fn deserialize<'de, D: Deserializer<'de>>(name: &str, block: D) -> Result<Box<dyn Stage>, D::Error>;
}

/// The real stages.
pub(super) struct Stages;

impl Vocabulary for Stages {
    fn names() -> Vec<String> {
        STAGES.iter().map(|info| info.name.to_owned()).collect()
    }

    fn deserialize<'de, D: Deserializer<'de>>(name: &str, block: D) -> Result<Box<dyn Stage>, D::Error> {
        stage::deserialize(name, block)
    }
}

/// Reads a whole file.
pub(super) fn read<V: Vocabulary>(source: &SourceText) -> Result<Pipeline, ConfigError> {
    let trace = Trace::<V>::default();
    let deserializer = serde_yaml::Deserializer::from_str(source.text());
    deserializer.deserialize_map(Whole(&trace)).map_err(|error| match trace.kind.take() {
        Some((kind, place)) => ConfigError::at(kind, source, &place),
        None => {
            let (within, stage) = (trace.within.borrow(), trace.stage.borrow());
            classify::types(&error, source, &within).map(|kind| renamed::explain(kind, &stage, &within))
        }
    })
}

/// What serde's error type cannot carry: the error as a type, and a description of the current place.
struct Trace<V> {
    kind: RefCell<Option<(ConfigErrorKind, Place)>>,
    within: RefCell<String>,
    /// The `use:` name of the stage that is being read.
    stage: RefCell<String>,
    vocabulary: PhantomData<V>,
}

impl<V> Default for Trace<V> {
    fn default() -> Self {
        let within = RefCell::new("the pipeline".to_owned());
        Self { kind: RefCell::default(), within, stage: RefCell::default(), vocabulary: PhantomData }
    }
}

impl<V> Trace<V> {
    fn fail<E: Error>(&self, kind: ConfigErrorKind, place: Place) -> E {
        let error = E::custom(&kind);
        self.kind.replace(Some((kind, place)));
        error
    }

    fn unknown_key<E: Error>(&self, key: &str, known: &[&str], place: Place) -> E {
        let known = known.iter().map(|&name| name.to_owned()).collect();
        let kind = ConfigErrorKind::UnknownKey {
            key: shown::brief(key).into_owned(),
            within: self.within.borrow().clone(),
            known,
        };
        self.fail(kind, place.key())
    }
}

struct Whole<'a, V>(&'a Trace<V>);

impl<'de, V: Vocabulary> Visitor<'de> for Whole<'_, V> {
    type Value = Pipeline;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping with the keys `format`, `name`, `seed` and `stages`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pipeline, A::Error> {
        let Self(trace) = self;
        let (mut format, mut name, mut seed, mut stages, mut gates) = (None, None, None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "format" => {
                    let found: u64 = map.next_value()?;
                    if found != FORMAT {
                        let kind = ConfigErrorKind::Format { found, known: FORMAT };
                        return Err(trace.fail(kind, Place::value(["format"])));
                    }
                    format = Some(found);
                }
                "name" => name = Some(map.next_value()?),
                "seed" => seed = Some(map.next_value()?),
                "stages" => stages = Some(map.next_value_seed(List(trace))?),
                "gates" => gates = Some(map.next_value()?),
                // Read separately, in `sweep.rs`.
                "sweep" => drop(map.next_value::<IgnoredAny>()?),
                _ => {
                    let known = ["format", "name", "seed", "stages", "gates", "sweep"];
                    return Err(trace.unknown_key(&key, &known, Place::value([&key])));
                }
            }
        }
        format.ok_or_else(|| A::Error::missing_field("format"))?;
        Ok(Pipeline {
            name: name.ok_or_else(|| A::Error::missing_field("name"))?,
            seed: seed.unwrap_or(0),
            stages: stages.ok_or_else(|| A::Error::missing_field("stages"))?,
            gates: gates.unwrap_or_default(),
        })
    }
}

struct List<'a, V>(&'a Trace<V>);

impl<'de, V: Vocabulary> DeserializeSeed<'de> for List<'_, V> {
    type Value = Vec<StageEntry>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, V: Vocabulary> Visitor<'de> for List<'_, V> {
    type Value = Vec<StageEntry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of stages, each beginning with `- id: ...`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut stages = Vec::new();
        while let Some(entry) = list.next_element_seed(Entry { trace: self.0, index: stages.len() })? {
            stages.push(entry);
        }
        self.0.within.replace("the pipeline".to_owned());
        Ok(stages)
    }
}

struct Entry<'a, V> {
    trace: &'a Trace<V>,
    index: usize,
}

impl<'de, V: Vocabulary> DeserializeSeed<'de> for Entry<'_, V> {
    type Value = StageEntry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.trace.within.replace(format!("stage {}", self.index + 1));
        deserializer.deserialize_map(self)
    }
}

impl<V> Entry<'_, V> {
    fn place(&self, key: &str) -> Place {
        Place::value(["stages", &self.index.to_string(), key])
    }
}

impl<'de, V: Vocabulary> Visitor<'de> for Entry<'_, V> {
    type Value = StageEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stage with the keys `id`, `use` and `with`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let trace = self.trace;
        let (mut id, mut name, mut stage) = (None::<String>, None::<String>, None);
        while let Some(key) = map.next_key::<String>()? {
            match (key.as_str(), &name) {
                ("id", _) => {
                    let found: String = map.next_value()?;
                    trace.within.replace(format!("stage `{}`", shown::brief(&found)));
                    id = Some(found);
                }
                ("use", _) => {
                    let found: String = map.next_value()?;
                    let known = V::names();
                    if !known.contains(&found) {
                        let kind =
                            ConfigErrorKind::UnknownStage { name: shown::brief(&found).into_owned(), known };
                        return Err(trace.fail(kind, self.place("use")));
                    }
                    name = Some(found);
                }
                ("with", Some(name)) => {
                    let within = id
                        .as_ref()
                        .map_or("a stage".to_owned(), |id| format!("stage `{}`", shown::brief(id)));
                    trace.within.replace(format!("{within} (use: {name})"));
                    trace.stage.replace(name.clone());
                    stage = Some(map.next_value_seed(With::<V>(name, PhantomData))?);
                }
                ("with", None) => {
                    return Err(trace.fail(ConfigErrorKind::WithBeforeUse, self.place("with").key()));
                }
                _ => return Err(trace.unknown_key(&key, &["id", "use", "with"], self.place(&key))),
            }
        }
        let id = id.ok_or_else(|| A::Error::missing_field("id"))?;
        let name = name.ok_or_else(|| A::Error::missing_field("use"))?;
        let stage = match stage {
            Some(stage) => stage,
            // Without a `with:`, a parameter that has no default is missing here.
            None => V::deserialize(&name, MapDeserializer::new(std::iter::empty::<((), ())>()))?,
        };
        Ok(StageEntry { id: id.into(), stage })
    }
}

/// A `with:` block, for the stage of this name.
struct With<'a, V>(&'a str, PhantomData<V>);

impl<'de, V: Vocabulary> DeserializeSeed<'de> for With<'_, V> {
    type Value = Box<dyn Stage>;

    fn deserialize<D: Deserializer<'de>>(self, block: D) -> Result<Self::Value, D::Error> {
        V::deserialize(self.0, block)
    }
}
