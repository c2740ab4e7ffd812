//! Walks through a whole text before it is read into types: refuses a key that a mapping has twice, of which the YAML
//! reader would silently keep the last one, and finds the values that are null.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::error::{ConfigError, ConfigErrorKind};
use super::source_text::SourceText;
use super::yaml::{locate, pass_scalars, position};
use super::{classify, limits};
use crate::base::shown;

/// Fails if the text is not YAML, is nested too deeply, or has a mapping with a key twice.
pub(super) fn check(source: &SourceText) -> Result<(), ConfigError> {
    limits::refuse_depth(source)?;
    let text = source.text();
    let Some(path) = duplicate_key(text).map_err(|error| classify::syntax(&error, source))? else {
        return Ok(());
    };
    let key = shown::brief(path.last().map_or("", String::as_str)).into_owned();
    let (first_line, _) = locate(text, &path, true).unwrap_or((1, 1));
    let (line, column) = locate_duplicate(text).unwrap_or((1, 1));
    let kind = ConfigErrorKind::DuplicateKey { key, first_line };
    Err(ConfigError::spanned(kind, source, source.span_at(line, column)))
}

/// The path of the first key that its mapping has twice. If the text is not YAML, the reader's error.
fn duplicate_key(text: &str) -> Result<Option<Vec<String>>, serde_yaml::Error> {
    let search = Search::default();
    match Unique(&search).deserialize(serde_yaml::Deserializer::from_str(text)) {
        Err(error) => search.duplicate.take().map_or(Err(error), |path| Ok(Some(path))),
        Ok(()) => Ok(None),
    }
}

/// Line and column of the second of the keys that [`duplicate_key`] finds.
fn locate_duplicate(text: &str) -> Option<(usize, usize)> {
    let search = Search::default();
    position(&Unique(&search).deserialize(serde_yaml::Deserializer::from_str(text)).err()?)
}

/// The paths of the values that are null: `null`, `~`, or nothing after the key. None in a text that is not YAML.
pub(super) fn nulls(text: &str) -> Vec<Vec<String>> {
    let search = Search::default();
    match Unique(&search).deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(()) => search.nulls.take(),
        Err(_) => Vec::new(),
    }
}

#[derive(Default)]
struct Search {
    path: RefCell<Vec<String>>,
    nulls: RefCell<Vec<Vec<String>>>,
    duplicate: RefCell<Option<Vec<String>>>,
}

#[derive(Clone, Copy)]
struct Unique<'a>(&'a Search);

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a tag")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key_seed(NewKey { search: self.0, seen: &seen })? {
            self.0.path.borrow_mut().push(key.clone());
            seen.insert(key);
            map.next_value_seed(self)?;
            self.0.path.borrow_mut().pop();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            self.0.path.borrow_mut().push(index.to_string());
            let more = list.next_element_seed(self)?;
            self.0.path.borrow_mut().pop();
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.nulls.borrow_mut().push(self.0.path.borrow().clone());
        Ok(())
    }

    pass_scalars!();
}

struct NewKey<'a> {
    search: &'a Search,
    seen: &'a HashSet<String>,
}

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        if self.seen.contains(key) {
            let mut path = self.search.path.borrow().clone();
            path.push(key.to_owned());
            self.search.duplicate.replace(Some(path));
            return Err(E::custom("given twice"));
        }
        Ok(key.to_owned())
    }
}
