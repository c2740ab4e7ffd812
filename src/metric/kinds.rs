//! The properties of a metric: what it needs, which direction is good, how its values are summarised, where it is shown.

use serde::{Deserialize, Serialize};

use crate::base::median;

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither.
    None,
}

/// An input that a metric requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Pictures of the prompts, and so an autoencoder.
    Pictures,
    /// A network that looks at pictures.
    Scorer,
    /// Several pictures of each prompt.
    Seeds,
    /// Held-out calibration points.
    Points,
    /// Lists of attribute words.
    Attributes,
}

/// How many values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// The arithmetic mean.
    Mean,
    /// The median.
    Median,
}

/// The value of a metric of a set of pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OfSet {
    /// The value.
    pub value: f64,
    /// Its standard error over prompts, where one can be estimated.
    pub error: Option<f64>,
}

/// Where a report shows a metric. Each variant includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prominence {
    /// In the tables of its evaluation.
    Table,
    /// Also where several runs are compared.
    Comparison,
    /// Also in the first sentence of the page and in the list of runs, as a percentage of the teacher's value.
    Card,
}

impl Need {
    /// What to give to the stage.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Pictures => "pictures: a model directory with an autoencoder, and prompts",
            Self::Scorer => "a scorer: the folder of a network that looks at pictures",
            Self::Seeds => "several pictures of each prompt: seeds of at least 2",
            Self::Points => "held-out points: a calibration artefact",
            Self::Attributes => "attributes: named lists of words",
        }
    }
}

impl Statistic {
    /// The statistic of some values; NaN for none.
    pub fn of(self, values: &[f64]) -> f64 {
        match self {
            Self::Mean => values.iter().sum::<f64>() / values.len() as f64,
            Self::Median => median(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_median() {
        assert_eq!(Statistic::Mean.of(&[1.0, 2.0, 6.0]), 3.0);
        assert_eq!(Statistic::Median.of(&[6.0, 1.0, 2.0]), 2.0);
    }
}
