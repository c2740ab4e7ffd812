//! A model against its teacher, prompt by prompt: the difference, how often the model is better, and the share of the
//! teacher's quality that it retains. The bootstrap resamples prompts.

use rand_chacha::ChaCha8Rng;

use super::bootstrap::{Interval, bootstrap};
use super::kinds::Better;
use super::record::{Estimate, Paired, Z};

/// The comparison of values of the same prompts. `stream` gives the same resamples for every model and metric.
pub(super) fn compare(own: &[f64], teacher: &[f64], better: Better, stream: ChaCha8Rng) -> Paired {
    let differences: Vec<f64> = own.iter().zip(teacher).map(|(own, teacher)| own - teacher).collect();
    let difference = estimate(
        mean(&differences),
        bootstrap(differences.len(), stream, |indices| {
            indices.iter().map(|&index| differences[index]).sum::<f64>() / indices.len() as f64
        }),
    );
    let won = |difference: &f64| match better {
        _ if *difference == 0.0 => 0.5,
        Better::Lower => f64::from(u8::from(*difference < 0.0)),
        Better::Higher | Better::None => f64::from(u8::from(*difference > 0.0)),
    };
    let wins = differences.iter().map(won).sum();
    let (wins, deviation) = (wilson(wins, differences.len()), deviation(&differences));
    Paired { difference, wins, deviation, wanted: None }
}

/// The floor that retained quality is measured from: the better of those there are, so that nothing is called retained that
/// the other kind of worthless picture has too.
pub(super) fn higher(floors: [Option<&[f64]>; 2], better: Better) -> Option<&[f64]> {
    let sign = if better == Better::Lower { -1.0 } else { 1.0 };
    floors.into_iter().flatten().max_by(|one, other| (sign * mean(one)).total_cmp(&(sign * mean(other))))
}

/// The percentage of the teacher's distance from the floor that a model keeps: 100 (own - floor) / (teacher - floor).
/// `None` unless the whole interval of that distance is on the better side of the floor.
pub(super) fn retained(
    own: &[f64],
    teacher: &[f64],
    floor: &[f64],
    better: Better,
    stream: &dyn Fn() -> ChaCha8Rng,
) -> Option<Estimate> {
    let sign = if better == Better::Lower { -1.0 } else { 1.0 };
    let sum = |values: &[f64], indices: &[usize]| -> f64 {
        indices.iter().map(|&index| sign * (values[index] - floor[index])).sum()
    };
    let distance = bootstrap(teacher.len(), stream(), |indices| sum(teacher, indices))?;
    if distance.low <= 0.0 {
        return None;
    }
    let share = |indices: &[usize]| 100.0 * (sum(own, indices) / sum(teacher, indices));
    let all: Vec<usize> = (0..own.len()).collect();
    Some(estimate(share(&all), bootstrap(own.len(), stream(), share)))
}

fn estimate(value: f64, interval: Option<Interval>) -> Estimate {
    Estimate {
        value,
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
    }
}

/// A share of `count` in percent with its 95 % score interval (Wilson 1927).
fn wilson(wins: f64, count: usize) -> Estimate {
    let n = count as f64;
    let (share, z2) = (wins / n, Z * Z);
    let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let percent = |share: f64| Some(100.0 * share.clamp(0.0, 1.0));
    Estimate { value: 100.0 * share, low: percent(middle - half), high: percent(middle + half) }
}

/// The standard deviation of a sample (divided by n - 1).
fn deviation(values: &[f64]) -> Option<f64> {
    let middle = mean(values);
    let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Random;

    fn stream() -> ChaCha8Rng {
        Random::new(1, "result").stream("bootstrap", 0)
    }

    /// Values of a teacher, and those of its pictures with shuffled captions.
    fn teacher() -> (Vec<f64>, Vec<f64>) {
        let values = |base: f64| (0..60).map(|index| base + f64::from(index * 37 % 11) / 10.0).collect();
        (values(21.0), values(17.0))
    }

    #[test]
    fn the_teacher_against_itself_is_equal() {
        let (teacher, floor) = teacher();
        let found = compare(&teacher, &teacher, Better::Higher, stream());
        assert_eq!(found.difference, Estimate { value: 0.0, low: Some(0.0), high: Some(0.0) });
        assert_eq!((found.wins.value, found.deviation), (50.0, Some(0.0)));
        let kept = retained(&teacher, &teacher, &floor, Better::Higher, &stream);
        assert_eq!(kept, Some(Estimate { value: 100.0, low: Some(100.0), high: Some(100.0) }));
    }

    #[test]
    fn the_floor_against_the_teacher_retains_nothing() {
        let (teacher, floor) = teacher();
        let found = compare(&floor, &teacher, Better::Higher, stream());
        assert!((found.difference.value + 4.0).abs() < 1e-9 && found.wins.value == 0.0);
        // Wilson's upper end for 0 of 60: z² / (60 + z²) = 6.02 %.
        assert!(found.wins.high.is_some_and(|high| (high - 6.0168).abs() < 1e-3), "{:?}", found.wins);
        let kept = retained(&floor, &teacher, &floor, Better::Higher, &stream);
        assert_eq!(kept, Some(Estimate { value: 0.0, low: Some(0.0), high: Some(0.0) }));
    }

    #[test]
    fn the_better_floor_is_the_one_to_be_above() {
        let (low, high) = ([1.0, 2.0], [3.0, 1.0]);
        assert_eq!(higher([Some(&low), Some(&high)], Better::Higher), Some(&high[..]));
        assert_eq!(higher([Some(&low), Some(&high)], Better::Lower), Some(&low[..]));
        assert_eq!(higher([None, Some(&low)], Better::Higher), Some(&low[..]));
        assert_eq!(higher([None, None], Better::Higher), None);
    }

    #[test]
    fn less_is_better_where_a_metric_says_so() {
        let (worse, good) = teacher();
        assert_eq!(compare(&good, &worse, Better::Lower, stream()).wins.value, 100.0);
        let kept = retained(&good, &good, &worse, Better::Lower, &stream).expect("it is better");
        assert_eq!(kept.value, 100.0);
    }

    #[test]
    fn nothing_is_retained_of_a_teacher_at_its_floor() {
        let (teacher, _) = teacher();
        let mut floor = teacher.clone();
        floor.rotate_left(7);
        assert_eq!(retained(&teacher, &teacher, &floor, Better::Higher, &stream), None);
    }

    #[test]
    fn the_prompts_for_a_difference_follow_from_the_deviation() {
        // Differences 1, 2, ..., 9: their standard deviation is the square root of 7.5.
        let own: Vec<f64> = (1..10).map(f64::from).collect();
        let found = compare(&own, &[0.0; 9], Better::Higher, stream());
        assert!(found.deviation.is_some_and(|found| (found - 7.5f64.sqrt()).abs() < 1e-12));
        // (1.96 * 2.7386 / 0.5)² = 115.2
        assert_eq!(found.prompts_for(0.5), Some(116.0));
        assert_eq!((found.prompts_for(0.0), found.prompts_for(100.0)), (None, Some(2.0)));
        let wanted = |wanted| Paired { wanted, ..found }.prompts_needed();
        assert_eq!((wanted(Some(0.5)), wanted(None)), (Some(116.0), None));
        let equal = compare(&own, &own, Better::Higher, stream());
        assert_eq!(Paired { wanted: Some(0.5), ..equal }.prompts_needed(), None);
        // Wilson for 9 of 9.
        assert!(found.wins.low.is_some_and(|low| (low - 70.085).abs() < 1e-2), "{:?}", found.wins);
    }
}
