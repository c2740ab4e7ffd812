//! Finds a place in a YAML text again, which the YAML reader does not do by itself.
//!
//! The reader knows only the position of an error. So to find a place we read the text again and
//! fail on purpose when we get there.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Visitor methods of a walker that looks at mappings and lists and lets everything else pass.
macro_rules! pass_scalars {
    () => {
        pass_scalars!(visit_str &str, visit_u64 u64, visit_i64 i64, visit_u128 u128, visit_i128 i128, visit_f64 f64, visit_bool bool);
    };
    (unit) => {
        pass_scalars!();

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

    pass_scalars!(unit);
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

pub(super) use pass_scalars;
