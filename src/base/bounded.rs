//! Numbers with bounds. A type states its bounds once: the reader of a file refuses a number outside them with the line,
//! the command line refuses it with the flag, and the JSON schema has them as `minimum` and `maximum`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// A whole number from `LEAST` to `MOST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whole<const LEAST: u32, const MOST: u32>(u32);

/// A number from an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Real<I>(f64, PhantomData<I>);

/// The bounds of a [`Real`].
pub trait Interval: Copy {
    /// The lower bound.
    const LOW: Bound;
    /// The upper bound.
    const HIGH: Bound;
}

/// One end of an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The number itself belongs to the interval.
    Including(f64),
    /// It does not.
    Excluding(f64),
}

/// Makes an interval with a name, for [`Real`].
macro_rules! intervals {
    ($($(#[$text:meta])* $name:ident: $low:expr, $high:expr;)*) => {$(
        $(#[$text])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name;

        impl Interval for $name {
            const LOW: Bound = $low;
            const HIGH: Bound = $high;
        }
    )*};
}

intervals! {
    /// A share that is neither nothing nor everything.
    Share: Bound::Excluding(0.0), Bound::Excluding(1.0);
    /// A share of any size.
    Fraction: Bound::Including(0.0), Bound::Including(1.0);
    /// The decay of a moving average, or a threshold relative to the largest value.
    BelowOne: Bound::Including(0.0), Bound::Excluding(1.0);
    /// A factor that cannot be 0. In f32, its square is neither 0 nor infinite.
    Positive: Bound::Including(1e-18), Bound::Including(1e18);
    /// A weight, which may be 0. In f32, its square is finite.
    Weight: Bound::Including(0.0), Bound::Including(1e18);
    /// A guidance scale. Pictures are saturated beyond some tens.
    Guidance: Bound::Including(0.0), Bound::Including(1000.0);
}

impl<const LEAST: u32, const MOST: u32> Whole<LEAST, MOST> {
    /// For numbers in the program's text.
    pub const fn new(value: u32) -> Self {
        assert!(LEAST <= value && value <= MOST, "BUG: a number outside its bounds");
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    fn of(value: impl TryInto<u32>) -> Option<Self> {
        value.try_into().ok().filter(|value| (LEAST..=MOST).contains(value)).map(Self)
    }

    /// What is needed: `a whole number from 1 to 16`.
    pub fn needed() -> String {
        format!("a whole number from {LEAST} to {MOST}")
    }
}

impl<I: Interval> Real<I> {
    /// For numbers in the program's text.
    pub const fn new(value: f64) -> Self {
        assert!(Self::holds(value), "BUG: a number outside its bounds");
        Self(value, PhantomData)
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// False for NaN.
    const fn holds(value: f64) -> bool {
        let above = match I::LOW {
            Bound::Including(low) => low <= value,
            Bound::Excluding(low) => low < value,
        };
        let below = match I::HIGH {
            Bound::Including(high) => value <= high,
            Bound::Excluding(high) => value < high,
        };
        above && below
    }

    fn of(value: f64) -> Option<Self> {
        Self::holds(value).then_some(Self(value, PhantomData))
    }

    fn needed() -> String {
        match (I::LOW, I::HIGH) {
            (Bound::Including(low), Bound::Including(high)) => {
                format!("a number from {} to {}", short(low), short(high))
            }
            (low, high) => {
                format!("a number {} and {}", low.text("above", "at least"), high.text("below", "at most"))
            }
        }
    }
}

impl Bound {
    fn text(self, excluding: &str, including: &str) -> String {
        match self {
            Self::Excluding(value) => format!("{excluding} {}", short(value)),
            Self::Including(value) => format!("{including} {}", short(value)),
        }
    }
}

/// `1e-18`, `0.5`, `1000`.
fn short(value: f64) -> String {
    let text = format!("{value:?}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Whole<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<const LEAST: u32, const MOST: u32>;
        impl<const LEAST: u32, const MOST: u32> Visitor<'_> for Reader<LEAST, MOST> {
            type Value = Whole<LEAST, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&Self::Value::needed())
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
                Whole::of(value).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                Whole::of(value).ok_or_else(|| E::invalid_value(Unexpected::Signed(value), &self))
            }
        }
        deserializer.deserialize_u64(Reader::<LEAST, MOST>)
    }
}

impl<'de, I: Interval> Deserialize<'de> for Real<I> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<I>(PhantomData<I>);
        impl<I: Interval> Visitor<'_> for Reader<I> {
            type Value = Real<I>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&Self::Value::needed())
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
                Real::of(value).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
                Real::of(value as f64).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                Real::of(value as f64).ok_or_else(|| E::invalid_value(Unexpected::Signed(value), &self))
            }
        }
        deserializer.deserialize_f64(Reader(PhantomData))
    }
}

impl<const LEAST: u32, const MOST: u32> Serialize for Whole<LEAST, MOST> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<I> Serialize for Real<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<const LEAST: u32, const MOST: u32> FromStr for Whole<LEAST, MOST> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<u64>().ok().and_then(Self::of).ok_or_else(|| format!("give {}", Self::needed()))
    }
}

impl<I: Interval> FromStr for Real<I> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().ok().and_then(Self::of).ok_or_else(|| format!("give {}", Self::needed()))
    }
}

impl<const LEAST: u32, const MOST: u32> fmt::Display for Whole<LEAST, MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<I> fmt::Display for Real<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const LEAST: u32, const MOST: u32> From<Whole<LEAST, MOST>> for u64 {
    fn from(value: Whole<LEAST, MOST>) -> Self {
        value.0.into()
    }
}

impl<const LEAST: u32, const MOST: u32> JsonSchema for Whole<LEAST, MOST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("WholeFrom{LEAST}To{MOST}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }
}

impl<I: Interval> JsonSchema for Real<I> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Self::needed().into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "number" });
        for (bound, including, excluding) in
            [(I::LOW, "minimum", "exclusiveMinimum"), (I::HIGH, "maximum", "exclusiveMaximum")]
        {
            match bound {
                Bound::Including(value) => schema.insert(including.to_owned(), value.into()),
                Bound::Excluding(value) => schema.insert(excluding.to_owned(), value.into()),
            };
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<usize, String> {
        serde_yaml::from_str::<Whole<1, 16>>(text).map(Whole::get).map_err(|error| error.to_string())
    }

    fn share(text: &str) -> Result<f64, String> {
        serde_yaml::from_str::<Real<Share>>(text).map(Real::get).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_inside_their_bounds_are_read() {
        assert_eq!([whole("1"), whole("16")], [Ok(1), Ok(16)]);
        assert_eq!([share("0.5"), share("1e-320")], [Ok(0.5), Ok(1e-320)]);
        assert_eq!("16".parse(), Ok(Whole::<1, 16>::new(16)));
        assert_eq!("1".parse(), Ok(Real::<Guidance>::new(1.0)));
        assert_eq!(serde_json::to_string(&Whole::<1, 16>::new(3)).ok().as_deref(), Some("3"));
    }

    #[test]
    fn numbers_outside_are_refused_with_their_bounds() {
        for text in
            ["0", "17", "-1", "9223372036854775807", "18446744073709551615", "18446744073709551616", "1.5"]
        {
            let error = whole(text).expect_err(text);
            assert!(error.contains("a whole number from 1 to 16"), "{text}: {error}");
            assert!(text.parse::<Whole<1, 16>>().is_err_and(|error| error.contains("1 to 16")), "{text}");
        }
        for text in ["0", "1", "-1", ".nan", ".inf", "-.inf", "1e308", "18446744073709551616"] {
            let error = share(text).expect_err(text);
            assert!(error.contains("a number above 0 and below 1"), "{text}: {error}");
        }
        for text in ["nan", "inf", "1e308", "-0.1", "x"] {
            let error = text.parse::<Real<Guidance>>().expect_err(text);
            assert_eq!(error, "give a number from 0 to 1000", "{text}");
        }
        assert_eq!(Real::<BelowOne>::needed(), "a number at least 0 and below 1");
        assert_eq!(Real::<Positive>::needed(), "a number from 1e-18 to 1e18");
    }
}
