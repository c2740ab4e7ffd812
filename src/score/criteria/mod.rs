//! The criteria, one per file.

mod block_influence;
mod delta_clip;
mod delta_task_loss;
mod diff_pruning;
mod magnitude;
mod output_loss;
mod random;
mod reconstructed_loss;
mod taylor;
mod timestep_weighted;

use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use super::criterion::{Criterion, CriterionInfo};
use crate::base::names::{self, UnknownName};

/// Makes [`CRITERIA`], [`criterion`] and [`with_parameters`] from one list of types; each of their modules has a
/// `const INFO: CriterionInfo`.
macro_rules! criteria {
    ($($module:ident :: $criterion:ident),* $(,)?) => {
        /// Every criterion; the first is the default.
        pub const CRITERIA: &[&CriterionInfo] = &[$(&$module::INFO),*];

        /// The criterion of this name, with the default of each parameter.
        pub fn criterion(name: &str) -> Result<Arc<dyn Criterion>, UnknownName> {
            find(name)?;
            $(if name == $module::INFO.name {
                return Ok(Arc::new($module::$criterion::default()));
            })*
            unreachable!("BUG: the criterion `{name}` has a row but no type")
        }

        /// The criterion of this name, with the parameters that `block` gives.
        pub fn with_parameters<'de, D>(name: &str, block: D) -> Result<Arc<dyn Criterion>, D::Error>
        where
            D: Deserializer<'de>,
        {
            $(if name == $module::INFO.name {
                return Ok(Arc::new($module::$criterion::deserialize(block)?));
            })*
            Err(serde::de::Error::custom(find(name).map(drop).expect_err("no row matched above")))
        }
    };
}

criteria! {
    output_loss::OutputLoss,
    reconstructed_loss::ReconstructedLoss,
    timestep_weighted::TimestepWeighted,
    delta_task_loss::DeltaTaskLoss,
    magnitude::Magnitude,
    taylor::Taylor,
    diff_pruning::DiffPruning,
    block_influence::BlockInfluence,
    delta_clip::DeltaClip,
    random::RandomScore,
}

fn find(name: &str) -> Result<&'static CriterionInfo, UnknownName> {
    names::find("criterion", CRITERIA, |info| info.name, name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_criterion_has_a_name_of_its_own() {
        for info in CRITERIA {
            let found = criterion(info.name).expect("it is in the table");
            assert_eq!(found.info().summary, info.summary, "{}", info.name);
        }
        let error = criterion("output-los").map(drop).expect_err("a slip of the hand");
        assert_eq!(error.to_string(), "unknown criterion `output-los`");
    }
}
