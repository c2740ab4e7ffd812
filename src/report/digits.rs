//! Numbers with as many digits as their interval deserves.

use super::chart::{number, power};

/// The most decimals that a number gets.
const MOST: i32 = 6;
/// Numbers below this have a power of ten.
const SMALL: f64 = 1e-3;

/// A value with its interval, rounded to the second digit of half the interval: `20.31 [20.12, 20.50]`. A value without
/// an interval, or with an empty one, gets at most two decimals.
pub(super) fn estimate(value: f64, low: Option<f64>, high: Option<f64>, unit: &str) -> String {
    let (value, interval) = apart(value, low, high, unit);
    match interval {
        Some(interval) => format!("{value} {interval}"),
        None => value,
    }
}

/// The value and its interval, each on its own: `20.31` and `[20.12, 20.50]`.
pub(super) fn apart(value: f64, low: Option<f64>, high: Option<f64>, unit: &str) -> (String, Option<String>) {
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    let (Some(low), Some(high)) = (low, high) else { return (format!("{}{unit}", plain(value)), None) };
    let half = (high - low) / 2.0;
    let largest = value.abs().max(low.abs()).max(high.abs());
    if largest >= SMALL || largest == 0.0 || !largest.is_finite() {
        let round = |value: f64| match half > 0.0 {
            true => format!("{value:.*}", decimals(half)),
            false => plain(value),
        };
        return (format!("{}{unit}", round(value)), Some(format!("[{}, {}]", round(low), round(high))));
    }
    let exponent =
        value.abs().max(f64::MIN_POSITIVE).log10().floor().max(largest.log10().floor() - 2.0) as i32;
    let scale = 10_f64.powi(exponent);
    let digits = if half > 0.0 { decimals(half / scale) } else { 2 };
    let round = |value: f64| format!("{:.digits$}", value / scale);
    let power = power(exponent);
    (format!("{}×{power}{unit}", round(value)), Some(format!("[{}, {}]×{power}", round(low), round(high))))
}

/// A number whose uncertainty is not known: at most two decimals, or three digits of a small one.
fn plain(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && size < 0.1 => number(value),
        _ => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

/// How many decimals a number with this uncertainty deserves.
fn decimals(half: f64) -> usize {
    (1 - half.log10().floor() as i32).clamp(0, MOST) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_decides_the_digits() {
        let text = |value, half| estimate(value, Some(value - half), Some(value + half), "");
        assert_eq!(text(20.312_34, 0.19), "20.31 [20.12, 20.50]");
        assert_eq!(text(92.708_3, 6.3), "92.7 [86.4, 99.0]");
        assert_eq!(text(1234.5, 310.0), "1234 [924, 1544]");
        assert_eq!(text(0.012_34, 0.000_12), "0.01234 [0.01222, 0.01246]");
        assert_eq!(text(4.273e-4, 0.31e-4), "4.27×10⁻⁴ [3.96, 4.58]×10⁻⁴");
        assert_eq!(text(100.0, 0.0), "100 [100, 100]");
        assert_eq!(text(0.0, 0.0), "0 [0, 0]");
        assert_eq!(estimate(98.25, None, None, "%"), "98.25 %");
        assert_eq!(estimate(50.0, None, None, "%"), "50 %");
        assert_eq!(estimate(4.27e-4, None, None, ""), "4.27×10⁻⁴");
    }
}
