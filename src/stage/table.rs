//! The table of stages: one row for each file of this folder that a `use:` names.

use serde::Deserializer;

use super::interface::{Stage, StageInfo};
use crate::base::names;

/// Makes [`STAGES`] and [`deserialize`] from one list of parameter types; each of their modules has a `const INFO: StageInfo`.
macro_rules! stages {
    ($($module:ident :: $parameters:ident),* $(,)?) => {
        /// All stages, in the order in which a pipeline usually has them.
        pub const STAGES: &[&StageInfo] = &[$(&super::$module::INFO),*];

        /// Reads the `with:` block of the stage `name` straight into its type, so that errors keep their line.
        pub fn deserialize<'de, D: Deserializer<'de>>(name: &str, block: D) -> Result<Box<dyn Stage>, D::Error> {
            use serde::de::{Deserialize, Error};
            $(if name == super::$module::INFO.name {
                return Ok(Box::new(super::$module::$parameters::deserialize(block)?));
            })*
            let error = names::find("stage", STAGES, |stage| stage.name, name).map(drop).expect_err("no row matched above");
            Err(D::Error::custom(error))
        }
    };
}

stages! {
    load::Load,
    calibrate::Calibrate,
    score::Score,
    profile::Profile,
    select::Select,
    prune::Prune,
    reconstruct::Reconstruct,
    encode::Encode,
    encode_texts::EncodeTexts,
    distill::Distill,
    evaluate::Evaluate,
    export::Export,
}
