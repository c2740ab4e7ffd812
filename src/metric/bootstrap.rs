//! Confidence intervals by the percentile bootstrap (Efron 1979).

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Number of resamples. With this many, the ends of a 95 % interval move by about 1 % of its width from seed to seed.
const RESAMPLES: usize = 2000;

/// A 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

/// The interval of a statistic of `count` values. `statistic` receives the indices of a resample; to compare two models
/// in pairs, it uses the same indices for both.
/// `None` for fewer than two values, and where the statistic is not finite.
pub fn bootstrap(
    count: usize,
    mut stream: ChaCha8Rng,
    mut statistic: impl FnMut(&[usize]) -> f64,
) -> Option<Interval> {
    if count < 2 {
        return None;
    }
    let mut indices = vec![0; count];
    let mut results: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            indices.fill_with(|| stream.random_range(0..count));
            statistic(&indices)
        })
        .collect();
    results.sort_by(f64::total_cmp);
    let percentile = |percent: f64| results[(percent / 100.0 * (RESAMPLES - 1) as f64).round() as usize];
    let interval = Interval { low: percentile(2.5), high: percentile(97.5) };
    (interval.low.is_finite() && interval.high.is_finite()).then_some(interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Random;

    fn mean_interval(values: &[f64], seed: u64) -> Option<Interval> {
        let mean = |indices: &[usize]| indices.iter().map(|&i| values[i]).sum::<f64>() / indices.len() as f64;
        bootstrap(values.len(), Random::new(seed, "test").stream("bootstrap", 0), mean)
    }

    #[test]
    fn the_interval_of_coin_flips_is_the_binomial_one() {
        let flips: Vec<f64> = (0..400).map(|index| f64::from(index % 2)).collect();
        let Interval { low, high } = mean_interval(&flips, 1).expect("there are 400 values");
        // 0.5 -+ 1.96 * sqrt(0.25 / 400) = 0.451 .. 0.549
        assert!((low - 0.451).abs() < 0.006 && (high - 0.549).abs() < 0.006, "{low} {high}");
    }

    #[test]
    fn a_seed_decides() {
        let values = [1.0, 5.0, 2.0, 8.0, 3.0];
        assert_eq!(mean_interval(&values, 1), mean_interval(&values, 1));
        assert_ne!(mean_interval(&values, 1), mean_interval(&values, 2));
    }

    #[test]
    fn constants_and_single_values() {
        assert_eq!(mean_interval(&[3.0; 9], 1), Some(Interval { low: 3.0, high: 3.0 }));
        assert_eq!(mean_interval(&[3.0], 1), None);
        assert_eq!(mean_interval(&[], 1), None);
        assert_eq!(mean_interval(&[f64::NAN, 1.0], 1), None);
    }
}
