//! Many values of a metric as one number, with its interval and its share of the teacher's.

use super::bootstrap::bootstrap;
use super::definition::Metric;
use super::kinds::{Better, OfSet, Statistic};
use super::paired;
use super::record::{Measurement, Paired, Z};
use crate::backend::Random;

/// What a model is compared with.
#[derive(Clone, Copy, Default)]
pub(super) struct Against<'a> {
    /// The teacher's values, unless the model is the teacher.
    pub(super) teacher: Option<&'a [f64]>,
    /// The values of the teacher's pictures with shuffled captions, where the metric has any.
    pub(super) shuffled: Option<&'a [f64]>,
    /// The values of pictures of noise, where the metric has any.
    pub(super) noise: Option<&'a [f64]>,
    /// How large a difference from the teacher should be told from none.
    pub(super) wanted: Option<f64>,
}

/// The properties of a metric that matter here.
#[derive(Clone, Copy)]
pub(super) struct Traits {
    unit: &'static str,
    better: Better,
    statistic: Statistic,
    has_zero: bool,
    is_by_prompt: bool,
    reproducible: bool,
}

/// The share of the teacher's value that a difference should be told from none at, unless it is asked for otherwise.
const PERCENT: f64 = 0.01;

/// Scores from outside: one per prompt, more is better, and nothing is known of their zero.
pub(super) const OUTSIDE: Traits = Traits {
    unit: "",
    better: Better::Higher,
    statistic: Statistic::Mean,
    has_zero: false,
    is_by_prompt: true,
    reproducible: true,
};

impl From<&dyn Metric> for Traits {
    fn from(metric: &dyn Metric) -> Self {
        Self {
            unit: metric.unit(),
            better: metric.better(),
            statistic: metric.statistic(),
            has_zero: metric.has_zero(),
            is_by_prompt: metric.method().is_by_prompt(),
            reproducible: metric.reproducible(),
        }
    }
}

/// Summarises the values of one model: the statistic, its interval, and the comparison with the teacher.
pub(super) fn summarise(metric: Traits, own: &[f64], against: &Against<'_>, random: &Random) -> Measurement {
    let statistic = metric.statistic;
    let pick = |values: &[f64], indices: &[usize]| {
        let picked: Vec<f64> = indices.iter().map(|&index| values[index]).collect();
        statistic.of(&picked)
    };
    // The same resamples for every model and metric: equal values have equal intervals.
    let stream = || random.stream("bootstrap", 0);
    let interval = bootstrap(own.len(), stream(), |indices| pick(own, indices));
    let value = statistic.of(own);
    let teacher = against.teacher.filter(|values| metric.has_zero && statistic.of(values) != 0.0);
    // Paired by prompt or point. Timings of two models are independent, so no pairs exist.
    let paired = teacher.filter(|values| metric.reproducible && values.len() == own.len());
    let ratio = paired.and_then(|values| {
        bootstrap(own.len(), stream(), |indices| 100.0 * (pick(own, indices) / pick(values, indices)))
    });
    let by_prompt = against.teacher.filter(|_| metric.is_by_prompt);
    let wanted = against.wanted.or_else(|| teacher.map(|values| PERCENT * statistic.of(values).abs()));
    let floor = paired::higher([against.shuffled, against.noise], metric.better);
    Measurement {
        value,
        statistic,
        count: own.len(),
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
        unit: metric.unit.to_owned(),
        better: metric.better,
        of_teacher: teacher.map(|values| 100.0 * (value / statistic.of(values))),
        of_teacher_low: ratio.map(|interval| interval.low),
        of_teacher_high: ratio.map(|interval| interval.high),
        paired: by_prompt
            .map(|values| Paired { wanted, ..paired::compare(own, values, metric.better, stream()) }),
        floor: against.shuffled.map(|values| statistic.of(values)),
        noise: against.noise.map(|values| statistic.of(values)),
        retained: by_prompt
            .zip(floor)
            .and_then(|(teacher, floor)| paired::retained(own, teacher, floor, metric.better, &stream)),
    }
}

/// The value of a set of pictures: with the interval of its standard error, if it has one.
pub(super) fn of_set(
    metric: &dyn Metric,
    own: &OfSet,
    teacher: Option<&OfSet>,
    pictures: usize,
) -> Measurement {
    let teacher = teacher.filter(|teacher| metric.has_zero() && teacher.value != 0.0);
    Measurement {
        value: own.value,
        statistic: Statistic::Mean,
        count: pictures,
        low: own.error.map(|error| own.value - Z * error),
        high: own.error.map(|error| own.value + Z * error),
        unit: metric.unit().to_owned(),
        better: metric.better(),
        of_teacher: teacher.map(|teacher| 100.0 * (own.value / teacher.value)),
        of_teacher_low: None,
        of_teacher_high: None,
        paired: None,
        floor: None,
        noise: None,
        retained: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::UnknownName;
    use crate::metric::metrics::find;

    fn against(teacher: &[f64]) -> Against<'_> {
        Against { teacher: Some(teacher), ..Against::default() }
    }

    #[test]
    fn a_model_at_ninety_percent_of_every_value_is_at_ninety() -> Result<(), UnknownName> {
        let teacher: Vec<f64> = (1..50).map(|value| f64::from(value % 7 + 1)).collect();
        let own: Vec<f64> = teacher.iter().map(|value| 0.9 * value).collect();
        let summary =
            summarise(find("clip-score")?.into(), &own, &against(&teacher), &Random::new(1, "result"));
        let near = |found: Option<f64>| found.is_some_and(|found| (found - 90.0).abs() < 1e-9);
        assert!(near(summary.of_teacher) && near(summary.of_teacher_low) && near(summary.of_teacher_high));
        assert!(summary.low < Some(summary.value) && Some(summary.value) < summary.high);
        Ok(())
    }

    #[test]
    fn the_difference_to_detect_is_asked_for_or_one_percent() -> Result<(), UnknownName> {
        let (own, teacher) = ([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]);
        let wanted = |name: &str, wanted: Option<f64>| -> Result<Option<f64>, UnknownName> {
            let against = Against { wanted, ..against(&teacher) };
            let found = summarise(find(name)?.into(), &own, &against, &Random::new(1, "result"));
            Ok(found.paired.expect("it has values by prompt").wanted)
        };
        assert_eq!(wanted("pick-score", None)?, Some(0.02));
        assert_eq!(wanted("pick-score", Some(0.1))?, Some(0.1));
        assert_eq!(wanted("image-reward", None)?, None, "its zero means nothing");
        Ok(())
    }

    #[test]
    fn nothing_is_a_percentage_of_zero() -> Result<(), UnknownName> {
        let summary = summarise(
            find("output-loss")?.into(),
            &[1.0, 2.0],
            &against(&[0.0, 0.0]),
            &Random::new(1, "result"),
        );
        assert_eq!(summary.of_teacher, None);
        assert_eq!(summary.value, 1.5);
        Ok(())
    }
}
