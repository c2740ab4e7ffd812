//! Numbers with as many digits as their interval deserves.

/// The most decimals that a number gets.
const MOST: i32 = 6;

/// A value with its interval, rounded to the second digit of half the interval: `20.31 [20.12, 20.50]`. A value without
/// an interval, or with an empty one, gets two decimals.
pub(super) fn estimate(value: f64, low: Option<f64>, high: Option<f64>, unit: &str) -> String {
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    let (Some(low), Some(high)) = (low, high) else { return format!("{value:.2}{unit}") };
    let decimals = decimals((high - low) / 2.0);
    format!("{value:.decimals$}{unit} [{low:.decimals$}, {high:.decimals$}]")
}

/// How many decimals a number with this uncertainty deserves.
fn decimals(half: f64) -> usize {
    match half > 0.0 {
        true => (1 - half.log10().floor() as i32).clamp(0, MOST) as usize,
        false => 2,
    }
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
        assert_eq!(text(0.001_234, 0.000_012), "0.001234 [0.001222, 0.001246]");
        assert_eq!(text(100.0, 0.0), "100.00 [100.00, 100.00]");
        assert_eq!(estimate(98.25, None, None, "%"), "98.25 %");
    }
}
