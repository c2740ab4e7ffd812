//! Reads a value from its text for serde. The text is parsed while the reader is at it, so that an error keeps its line;
//! with `try_from`, it would have that of the mapping around it.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Reads text and parses it; `expecting` is what is needed, such as `an amount of memory such as 8 GB`.
pub fn text<'de, T, D>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    struct Parse<T>(&'static str, PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Parse<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Parse(expecting, PhantomData))
}

/// Reads a whole number and converts it.
pub fn number<'de, T, D>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    T: TryFrom<usize, Error: fmt::Display>,
    D: Deserializer<'de>,
{
    struct Convert<T>(&'static str, PhantomData<T>);

    impl<T: TryFrom<usize, Error: fmt::Display>> Visitor<'_> for Convert<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
            usize::try_from(number).map_err(E::custom)?.try_into().map_err(E::custom)
        }
    }

    deserializer.deserialize_u64(Convert(expecting, PhantomData))
}
