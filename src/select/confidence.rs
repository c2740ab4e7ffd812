//! Intervals for predicted losses, from how well a surrogate predicted the measured losses of random sets.
//!
//! The logarithm of the measured joint loss is fitted as a line in the logarithm of the prediction, by least squares over the
//! measured sets. The interval is the usual one for a new observation, with Student's t at 95 %. Random sets lose more than
//! chosen ones, so a selection often lies below all of them: the interval widens with that distance, but assumes that the
//! line continues.

use serde::{Deserialize, Serialize};

use crate::score::Additivity;
use crate::score::ROUNDING;

/// With fewer sets their scatter is unknown.
const LEAST_SETS: usize = 6;
/// The 97.5 % quantile of the normal distribution.
const NORMAL: f64 = 1.959_963_985;

/// A predicted joint loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The most likely loss.
    pub loss: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end of the 95 % interval.
    pub high: f64,
}

impl Interval {
    /// The interval for a set of units for which the surrogate `name`, a criterion or `gram`, predicts `predicted`. None if too
    /// few different sets were measured, if they do not vary, or if a logarithm does not exist.
    pub fn of(additivity: &Additivity, name: &str, predicted: f64) -> Option<Self> {
        let pairs =
            additivity.distinct().into_iter().filter_map(|set| Some((*set.predicted.get(name)?, set.joint)));
        let pairs = pairs.filter(|(predicted, joint)| *predicted > 0.0 && *joint > 0.0);
        let logs: Vec<_> = pairs.map(|(predicted, joint)| (predicted.ln(), joint.ln())).collect();
        let n = logs.len() as f64;
        if logs.len() < LEAST_SETS || predicted <= 0.0 {
            return None;
        }
        let mean = |pick: fn(&(f64, f64)) -> f64| logs.iter().map(pick).sum::<f64>() / n;
        let (x, y) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let squares: f64 = logs.iter().map(|pair| (pair.0 - x).powi(2)).sum();
        let varied: f64 = logs.iter().map(|pair| (pair.1 - y).powi(2)).sum();
        if squares.min(varied) <= ROUNDING * n {
            return None;
        }
        let slope = logs.iter().map(|pair| (pair.0 - x) * (pair.1 - y)).sum::<f64>() / squares;
        let off: f64 = logs.iter().map(|pair| (pair.1 - y - slope * (pair.0 - x)).powi(2)).sum();
        let freedom = n - 2.0;
        let at = predicted.ln() - x;
        let scatter = (off / freedom * (1.0 + 1.0 / n + at * at / squares)).sqrt();
        let line = y + slope * at;
        let half = student(freedom) * scatter;
        let found = Self { loss: line.exp(), low: (line - half).exp(), high: (line + half).exp() };
        (found.loss > 0.0 && found.high.is_finite()).then_some(found)
    }
}

/// The 97.5 % quantile of Student's t, by Fisher's expansion; off by less than 1 % from four degrees of freedom on.
fn student(freedom: f64) -> f64 {
    let z = NORMAL;
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    z + (z3 + z) / (4.0 * freedom)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * freedom.powi(2))
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * freedom.powi(3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::score::MeasuredSet;

    fn additivity(pairs: &[(f64, f64)]) -> Additivity {
        let set = |&(predicted, joint): &(f64, f64)| MeasuredSet {
            removed: vec![format!("{predicted}").into()],
            ratio: 0.5,
            joint,
            predicted: BTreeMap::from([("gram".to_owned(), predicted)]),
        };
        Additivity::of(pairs.iter().map(set).collect())
    }

    #[test]
    fn students_quantile_is_that_of_the_tables() {
        for (freedom, quantile) in [(4.0, 2.776), (6.0, 2.447), (22.0, 2.074)] {
            assert!((student(freedom) / quantile - 1.0).abs() < 0.01, "{freedom}: {}", student(freedom));
        }
    }

    #[test]
    fn a_power_law_is_predicted_without_doubt_and_scatter_widens() {
        let law: Vec<_> = (1..8).map(|x| (f64::from(x), 3.0 * f64::from(x).powf(0.8))).collect();
        let sure = Interval::of(&additivity(&law), "gram", 20.0).expect("seven sets");
        assert!(
            (sure.loss / (3.0 * 20f64.powf(0.8)) - 1.0).abs() < 1e-9 && sure.high / sure.low < 1.0 + 1e-6
        );
        let noisy: Vec<_> =
            law.iter().zip([1.1, 0.9].iter().cycle()).map(|(law, off)| (law.0, law.1 * off)).collect();
        let near = Interval::of(&additivity(&noisy), "gram", 4.0).expect("seven sets");
        let far = Interval::of(&additivity(&noisy), "gram", 400.0).expect("seven sets");
        assert!(near.low < near.loss && near.loss < near.high);
        assert!(far.high / far.low > near.high / near.low);
        assert_eq!(Interval::of(&additivity(&law), "magnitude", 4.0), None);
        assert_eq!(Interval::of(&additivity(&law[..5]), "gram", 4.0), None);
        assert_eq!(
            Interval::of(&additivity(&[law[..5].to_vec(), law[..5].to_vec()].concat()), "gram", 4.0),
            None
        );
        let flat: Vec<_> = law.iter().map(|law| (law.0, 2.0)).collect();
        assert_eq!(Interval::of(&additivity(&flat), "gram", 4.0), None);
    }
}
