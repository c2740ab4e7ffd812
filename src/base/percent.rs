//! A share as people write it: `1 %`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::parsed;

/// From 0 to 100 percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(f64);

impl Percent {
    /// For numbers in the program's text.
    pub const fn new(percent: f64) -> Self {
        assert!(0.0 <= percent && percent <= 100.0, "BUG: a number outside its bounds");
        Self(percent)
    }

    /// Whether `part` of `whole` is at most this share.
    pub fn covers(self, part: usize, whole: usize) -> bool {
        100.0 * part as f64 <= self.0 * whole as f64
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        number
            .filter(|number| (0.0..=100.0).contains(number))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a share; give a number from 0 to 100 and %: 1 %"))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed::text(deserializer, "a share such as 1 %")
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+([.][0-9]+)? *%$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_its_sign() {
        for text in ["1 %", "1%", " 0.5 % ", "100%", "0 %"] {
            assert!(text.parse::<Percent>().is_ok(), "{text}");
        }
        for text in ["1", "", "%", "-1 %", "101 %", "NaN %", "1 % 2"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
        let one = Percent::new(1.0);
        assert!(one.covers(0, 0) && one.covers(1, 100) && !one.covers(1, 99) && !one.covers(2, 100));
        assert_eq!(one.to_string(), "1 %");
    }
}
