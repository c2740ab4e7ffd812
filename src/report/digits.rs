//! Numbers with as many digits as their interval deserves.

use super::chart::{number, power, trimmed};

/// The most decimals that a number gets.
const MOST: i32 = 6;
/// Numbers below this have a power of ten.
const SMALL: f64 = 1e-3;

/// A value with its interval: `20.31 [20.12, 20.50]`. Half the interval keeps two digits if it begins with 1 or 2, otherwise
/// one. A value without an interval, or with an empty one, gets at most two decimals, in percent one.
pub(super) fn estimate(value: f64, low: Option<f64>, high: Option<f64>, unit: &str) -> String {
    let (value, interval) = apart(value, low, high, unit);
    match interval {
        Some(interval) => format!("{value} {interval}"),
        None => value,
    }
}

/// The value and its interval, each on its own: `20.31` and `[20.12, 20.50]`.
pub(super) fn apart(value: f64, low: Option<f64>, high: Option<f64>, unit: &str) -> (String, Option<String>) {
    if unit == "s" && value.abs().max(high.unwrap_or(value).abs()) < 1.0 {
        return apart(1e3 * value, low.map(|low| 1e3 * low), high.map(|high| 1e3 * high), "ms");
    }
    let is_percent = unit == "%";
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    let (Some(low), Some(high)) = (low, high) else {
        let digits = if is_percent { trimmed(value, 1) } else { plain(value) };
        return (format!("{digits}{unit}"), None);
    };
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
        _ => trimmed(value, 2),
    }
}

/// How many decimals a number with this uncertainty deserves.
fn decimals(half: f64) -> usize {
    let place = half.log10().floor();
    let first = half / 10_f64.powf(place);
    (i32::from(first < 3.0) - place as i32).clamp(0, MOST) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_decides_the_digits() {
        let text = |value, half| estimate(value, Some(value - half), Some(value + half), "");
        assert_eq!(text(20.312_34, 0.19), "20.31 [20.12, 20.50]");
        assert_eq!(text(92.708_3, 6.3), "93 [86, 99]");
        assert_eq!(text(1234.5, 310.0), "1234 [924, 1544]");
        assert_eq!(text(0.012_34, 0.000_12), "0.01234 [0.01222, 0.01246]");
        assert_eq!(text(4.273e-4, 0.31e-4), "4.3×10⁻⁴ [4.0, 4.6]×10⁻⁴");
        assert_eq!(text(100.0, 0.0), "100 [100, 100]");
        assert_eq!(text(0.0, 0.0), "0 [0, 0]");
        assert_eq!(estimate(98.25, None, None, "%"), "98.2 %");
        assert_eq!(estimate(100.007, Some(99.922), Some(100.105), "%"), "100.01 % [99.92, 100.11]");
        assert_eq!(estimate(0.025_83, Some(0.0248), Some(0.026_41), "s"), "25.8 ms [24.8, 26.4]");
        assert_eq!(estimate(50.0, None, None, "%"), "50 %");
        assert_eq!(estimate(4.27e-4, None, None, ""), "4.27×10⁻⁴");
    }
}
