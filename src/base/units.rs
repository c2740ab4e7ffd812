//! Numbers as people read and write them.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::parsed;

/// An amount of memory as people write it: `8 GB`, `1.5GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an amount of memory; give a number and a unit: 8 GB");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, unit) = (&text[..end], text[end..].trim());
        let (prefix, base) = match unit.strip_suffix("iB") {
            Some(prefix) if !prefix.is_empty() => (prefix, 1024_f64),
            _ => (unit.strip_suffix('B').ok_or_else(wrong)?, 1000.0),
        };
        let power = ["", "k", "M", "G", "T"].iter().position(|known| known.eq_ignore_ascii_case(prefix));
        let number: f64 = number.parse().map_err(|_| wrong())?;
        Ok(Self((number * base.powi(power.ok_or_else(wrong)? as i32)) as u64))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed::text(deserializer, "an amount of memory such as 8 GB")
    }
}

impl From<Bytes> for String {
    fn from(Bytes(count): Bytes) -> Self {
        format!("{count} B")
    }
}

/// A length of time as people write it: `30 d`, `12h`, `90 min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub Duration);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a length of time; give a number and a unit: 30d, 12h, 90min or 45s");
        let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..end].parse().map_err(|_| wrong())?;
        let unit = match text[end..].trim() {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return Err(wrong()),
        };
        number.checked_mul(unit).map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

/// `5 min ago`, rounded down.
pub fn ago(seconds: f64) -> String {
    let (minute, hour, day) = (60.0, 3600.0, 86_400.0);
    match seconds {
        s if s < minute => "just now".to_owned(),
        s if s < hour => format!("{:.0} min ago", (s / minute).floor()),
        s if s < 2.0 * day => format!("{:.0} h ago", (s / hour).floor()),
        s => format!("{:.0} days ago", (s / day).floor()),
    }
}

/// `1.3 GB`, decimal units.
pub fn bytes(count: u64) -> String {
    scaled(count as f64, &["B", "kB", "MB", "GB", "TB"])
}

/// `859.5 M`, for parameters and multiply-accumulates.
pub fn count(number: u64) -> String {
    scaled(number as f64, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

/// `3.2 s`, `4 min 05 s`, `2 h 07 min`.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 59.95 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

fn scaled(mut value: f64, names: &[&str]) -> String {
    let mut rank = 0;
    while value >= 999.95 && rank + 1 < names.len() {
        value /= 1e3;
        rank += 1;
    }
    let digits = if rank == 0 { 0 } else { 1 };
    format!("{value:.digits$} {}", names[rank])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_a_unit() {
        let age = |text: &str| text.parse::<Age>().map(|Age(length)| length.as_secs());
        let units = ["45s", "90 min", "12h", "30d", "2w", "0d"].map(|text| age(text).ok());
        assert_eq!(units, [Some(45), Some(5_400), Some(43_200), Some(2_592_000), Some(1_209_600), Some(0)]);
        for wrong in ["30", "d", "1 month", "-1d", "1.5d", "99999999999999999999d", "9999999999999999999d"] {
            assert!(age(wrong).is_err_and(|error| error.contains("30d")), "{wrong}");
        }
    }

    #[test]
    fn ages_are_rounded_down() {
        let ages = [0.0, 61.0, 7_100.0, 90_000.0, 300_000.0].map(ago);
        assert_eq!(ages, ["just now", "1 min ago", "1 h ago", "25 h ago", "3 days ago"]);
    }

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in
            [("8 GB", 8_000_000_000), ("1.5GiB", 3 << 29), ("64 KB", 64_000), ("0 B", 0), ("7 MiB", 7 << 20)]
        {
            let found = text.parse().unwrap_or(Bytes(1));
            assert_eq!(found, Bytes(bytes), "{text}");
            assert_eq!(String::from(found).parse(), Ok(found));
        }
        for text in ["", "8", "GB", "8 Gb/s", "8 PB", "-1 GB", "1.2.3 GB", "8 iB"] {
            let error = text.parse::<Bytes>().expect_err(text);
            assert!(error.contains(&format!("`{text}`")) && error.contains("8 GB"), "{error}");
        }
    }

    #[test]
    fn rounds_where_people_do() {
        assert_eq!(super::bytes(999), "999 B");
        assert_eq!(super::bytes(1_331_334_404), "1.3 GB");
        assert_eq!(super::count(859_520_964), "859.5 M");
        assert_eq!(super::seconds(0.0312), "31 ms");
        assert_eq!(super::seconds(245.2), "4 min 05 s");
        assert_eq!(super::seconds(7620.0), "2 h 07 min");
    }
}
