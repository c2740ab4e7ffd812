//! What the YAML reader does not do by itself: find a place again, and refuse a key given twice.
//!
//! The reader knows the position of an error and nothing else's. So to find a place we read the
//! text again and fail on purpose when we are there.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Visitor methods of a walker that looks at mappings and lists and lets everything else pass.
macro_rules! pass_scalars {
    () => {
        pass_scalars!(visit_str &str, visit_u64 u64, visit_i64 i64, visit_u128 u128, visit_i128 i128, visit_f64 f64, visit_bool bool);

        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
    };
    ($($method:ident $scalar:ty),*) => {$(
        fn $method<E>(self, _: $scalar) -> Result<(), E> {
            Ok(())
        }
    )*};
}

/// Line and column, from 1, of the value at `path`, or of its key. `None` where there is no such place.
pub(super) fn locate(text: &str, path: &[String], at_key: bool) -> Option<(usize, usize)> {
    let error = Walk { path, at_key }.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    position(&error)
}

/// Line and column, from 1, that an error of the reader names.
pub(super) fn position(error: &serde_yaml::Error) -> Option<(usize, usize)> {
    error.location().map(|at| (at.line(), at.column()))
}

/// Follows a path and fails at its end.
struct Walk<'a> {
    path: &'a [String],
    at_key: bool,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            deserializer.deserialize_any(Fail)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a way to `{}`", self.path.join("."))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let [wanted, rest @ ..] = self.path else { return Ok(()) };
        let fail_on = (rest.is_empty() && self.at_key).then_some(wanted.as_str());
        while let Some(key) = map.next_key_seed(Key { fail_on })? {
            if key == *wanted {
                map.next_value_seed(Walk { path: rest, at_key: self.at_key })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let [wanted, rest @ ..] = self.path else { return Ok(()) };
        let Ok(wanted) = wanted.parse::<usize>() else { return ignore_rest(list) };
        for _ in 0..wanted {
            list.next_element::<IgnoredAny>()?;
        }
        list.next_element_seed(Walk { path: rest, at_key: self.at_key })?;
        ignore_rest(list)
    }

    pass_scalars!();
}

fn ignore_rest<'de, A: SeqAccess<'de>>(mut list: A) -> Result<(), A::Error> {
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Accepts nothing: every `visit_` method that is not written fails, with the position of what it was shown.
struct Fail;

impl Visitor<'_> for Fail {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error")
    }
}

/// Reads a key as text, and fails on one of them.
struct Key<'a> {
    fail_on: Option<&'a str>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        if self.fail_on == Some(key) { Err(E::custom("here")) } else { Ok(key.to_owned()) }
    }
}

/// The path of the first key that its mapping holds twice. Text that is not YAML gives its error.
pub(super) fn duplicate_key(text: &str) -> Result<Option<Vec<String>>, serde_yaml::Error> {
    let search = Search::default();
    match Unique(&search).deserialize(serde_yaml::Deserializer::from_str(text)) {
        Err(error) => search.duplicate.take().map_or(Err(error), |path| Ok(Some(path))),
        Ok(()) => Ok(None),
    }
}

/// Line and column of the second key at `path`, for a path that [`duplicate_key`] gave.
pub(super) fn locate_duplicate(text: &str) -> Option<(usize, usize)> {
    let search = Search::default();
    position(&Unique(&search).deserialize(serde_yaml::Deserializer::from_str(text)).err()?)
}

#[derive(Default)]
struct Search {
    path: RefCell<Vec<String>>,
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
