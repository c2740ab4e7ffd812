//! A scale of a plot: where a value lies between the ends of an axis, and which ticks are readable there.

/// A tick: its place from 0 to 1 along the axis, and its label; a mark between two labels has none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

/// An axis from its lowest to its highest value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

/// The most labels of a linear axis.
const LABELS: f64 = 6.0;
/// The most labels of a logarithmic axis, which may skip powers of ten.
const POWERS: i32 = 6;

impl Scale {
    /// The scale of some finite values, which are positive if it is logarithmic, with a margin at both ends.
    pub(super) fn around(values: impl Iterator<Item = f64>, log: bool) -> Option<Self> {
        let values = values.map(|value| if log { value.log10() } else { value });
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        let margin = match high > low {
            true => 0.05 * (high - low),
            false if log => 0.5,
            false => 0.1 * high.abs().max(1.0),
        };
        Some(Self { low: low - margin, high: high + margin, log })
    }

    /// The place of a value, from 0 at the low end to 1 at the high end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }

    pub(super) fn ticks(&self) -> Vec<Tick> {
        if !self.log {
            return self.round_numbers();
        }
        let powers = self.powers();
        let labels = powers.iter().filter(|tick| !tick.label.is_empty()).count();
        if labels < 2 { self.within_a_power() } else { powers }
    }

    fn tick(&self, value: f64, label: String) -> Option<Tick> {
        let at = self.place(value);
        (-1e-9..=1.0 + 1e-9).contains(&at).then_some(Tick { at, label })
    }

    /// Multiples of 1, 2 or 5 times a power of ten.
    fn round_numbers(&self) -> Vec<Tick> {
        let rough = (self.high - self.low) / LABELS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].map(|of| of * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        let label = |value: f64| match value.abs() {
            _ if step >= 1e5 || (step < 1e-4 && value != 0.0) => number(value),
            _ => format!("{:.decimals$}", value + 0.0),
        };
        (first..=last)
            .filter_map(|index| self.tick(index as f64 * step, label(index as f64 * step)))
            .collect()
    }

    /// Powers of ten with labels, and marks at 2 to 9 times them where there is room.
    fn powers(&self) -> Vec<Tick> {
        let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
        let every = ((self.high - self.low) as i32 / POWERS + 1).max(1);
        let mut ticks = Vec::new();
        for exponent in first..=last {
            let label = if exponent.rem_euclid(every) == 0 { power(exponent) } else { String::new() };
            ticks.extend(self.tick(10_f64.powi(exponent), label));
            if every == 1 {
                let between = |times: i32| self.tick(f64::from(times) * 10_f64.powi(exponent), String::new());
                ticks.extend((2..10).filter_map(between));
            }
        }
        ticks
    }

    /// For a range with less than two powers of ten: 1, 2 and 5 times a power have labels, or as many numbers as it takes.
    fn within_a_power(&self) -> Vec<Tick> {
        let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
        let some = |factors: &[i32]| -> Vec<Tick> {
            let of = |exponent: i32| {
                let value = move |&times: &i32| f64::from(times) * 10_f64.powi(exponent);
                factors.iter().map(value).collect::<Vec<_>>()
            };
            let all = (first..=last).flat_map(of);
            all.filter_map(|value| self.tick(value, number(value))).collect()
        };
        let ticks = some(&[1, 2, 5]);
        if ticks.len() >= 2 {
            return ticks;
        }
        let linear = Self { low: 10_f64.powf(self.low), high: 10_f64.powf(self.high), log: false };
        let back = |tick: Tick| {
            let value = linear.low + tick.at * (linear.high - linear.low);
            self.tick(value, tick.label)
        };
        linear.round_numbers().into_iter().filter_map(back).collect()
    }
}

/// A number for a tick or a tooltip: up to four digits, with a power of ten where zeros would fill the line.
pub(in crate::report) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-2..1e5).contains(&size) {
        let mut exponent = size.log10().floor() as i32;
        let mut factor = trimmed(value / 10_f64.powi(exponent), 3);
        if factor.trim_start_matches('-') == "10" {
            exponent += 1;
            factor = trimmed(value / 10_f64.powi(exponent), 3);
        }
        return match factor.as_str() {
            "1" => power(exponent),
            _ => format!("{factor}×{}", power(exponent)),
        };
    }
    trimmed(value, (3 - size.log10().floor() as i32).max(0) as usize)
}

/// `10⁻³`.
pub(in crate::report) fn power(exponent: i32) -> String {
    match exponent {
        0 => "1".to_owned(),
        1 => "10".to_owned(),
        _ => format!("10{}", exponent.to_string().chars().map(raised).collect::<String>()),
    }
}

fn raised(digit: char) -> char {
    match digit {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '0' | '4'..='9' => char::from_u32('⁰' as u32 + digit as u32 - '0' as u32).unwrap_or(digit),
        _ => digit,
    }
}

/// A number without zeros at its end.
pub(in crate::report) fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: [f64; 2], log: bool) -> Vec<String> {
        let scale = Scale::around(values.into_iter(), log).expect("a scale");
        scale.ticks().into_iter().map(|tick| tick.label).filter(|label| !label.is_empty()).collect()
    }

    #[test]
    fn ticks_are_round_numbers_and_powers_of_ten() {
        assert_eq!(labels([0.0, 400.0], false), ["0", "100", "200", "300", "400"]);
        assert_eq!(labels([0.31, 0.72], false), ["0.3", "0.4", "0.5", "0.6", "0.7"]);
        assert_eq!(labels([3e-4, 0.2], true), ["10⁻³", "10⁻²", "10⁻¹"]);
        assert_eq!(labels([1e-11, 1.0], true), ["10⁻⁹", "10⁻⁶", "10⁻³", "1"]);
        assert_eq!(labels([0.02, 0.09], true), ["0.02", "0.05"]);
        assert_eq!(labels([0.61, 0.67], true), ["0.62", "0.64", "0.66"]);
    }

    #[test]
    fn one_value_has_a_scale_of_its_own() {
        for log in [false, true] {
            let scale = Scale::around([3e-4, 3e-4].into_iter(), log).expect("a scale");
            assert!((scale.place(3e-4) - 0.5).abs() < 1e-9);
            assert!(!scale.ticks().is_empty());
        }
        assert!(Scale::around(std::iter::empty(), false).is_none());
    }

    #[test]
    fn numbers_are_short() {
        let shown =
            [0.0, 1.0, -0.25, 12.345_67, 1234.5, 400_000.0, 1e-3, 3.0e-4, 9.9996e-5, -2.5e-7].map(number);
        assert_eq!(
            shown,
            ["0", "1", "-0.25", "12.35", "1234", "4×10⁵", "10⁻³", "3×10⁻⁴", "10⁻⁴", "-2.5×10⁻⁷"]
        );
    }
}
