//! The current time, for records. It never enters a key.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, as `2026-08-01T12:00:00Z`.
pub fn now() -> String {
    utc(nanoseconds(SystemTime::now()).div_euclid(1_000_000_000))
}

/// Nanoseconds since 1970, negative before.
pub fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i64,
        Err(before) => -(before.duration().as_nanos() as i64),
    }
}

/// Seconds since 1970 as RFC 3339 in UTC. The calendar is counted from March, so that the leap day
/// comes last in the year, in eras of 400 years: 146,097 days.
pub fn utc(seconds: i64) -> String {
    const ERA: i64 = 146_097;
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468; // from 1 March of the year 0
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153; // 0 is March
    let day = day - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The seconds since 1970 of a time that [`utc`] wrote.
pub fn seconds_of(text: &str) -> Option<i64> {
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let year = year - i64::from(month <= 2);
    let march = (month + 9) % 12; // 0 is March
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = days + (153 * march + 2) / 5 + day - 1 - 719_468;
    Some(86_400 * days + 3_600 * hour + 60 * minute + second)
}

#[cfg(test)]
mod tests {
    use super::{seconds_of, utc};

    #[test]
    fn reads_what_it_writes() {
        for seconds in [0, 951_782_399, 951_782_400, 1_709_251_199, 1_798_761_599, 4_107_542_400] {
            assert_eq!(seconds_of(&utc(seconds)), Some(seconds), "{}", utc(seconds));
        }
        assert_eq!(seconds_of("yesterday"), None);
    }

    /// Expected values: `date -u -d @N +%FT%TZ`.
    #[test]
    fn knows_leap_days_and_the_turn_of_a_year() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(utc(1_798_761_599), "2026-12-31T23:59:59Z");
        assert_eq!(utc(-1), "1969-12-31T23:59:59Z");
    }
}
