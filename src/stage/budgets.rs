//! The budgets of a selection besides that of parameters, as a pipeline file states them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::base::Real;
use crate::base::bounded::Share;
use crate::base::units::Bytes;
use crate::select::MemoryBudget;

/// The smallest shares to remove, each above 0 and below 1.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct OtherBudgets {
    /// The share of the multiply-accumulates of a forward pass at the model's own size.
    pub(super) macs: Option<Real<Share>>,
    /// The share of the time of a forward pass, as measured by `profile`.
    pub(super) latency: Option<Real<Share>>,
    /// The share of the weights' memory; or the memory that the weights must fit into in f16 or bf16, such as `2GB`.
    pub(super) memory: Option<MemoryAmount>,
}

/// A share, or an amount of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryAmount(pub(super) MemoryBudget);

impl OtherBudgets {
    /// Whether any budget is given.
    pub(super) fn asks(&self) -> bool {
        self.macs.is_some() || self.latency.is_some() || self.memory.is_some()
    }
}

impl fmt::Display for MemoryAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            MemoryBudget::Share(share) => write!(f, "{share:?}"),
            MemoryBudget::Bytes(bytes) => write!(f, "{bytes} B"),
        }
    }
}

impl<'de> Deserialize<'de> for MemoryAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = MemoryAmount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share above 0 and below 1, or an amount of memory such as 2GB")
            }

            fn visit_f64<E: de::Error>(self, share: f64) -> Result<MemoryAmount, E> {
                match share > 0.0 && share < 1.0 {
                    true => Ok(MemoryAmount(MemoryBudget::Share(share))),
                    false => Err(E::invalid_value(de::Unexpected::Float(share), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<MemoryAmount, E> {
                let Bytes(bytes) = text.parse().map_err(E::custom)?;
                Ok(MemoryAmount(MemoryBudget::Bytes(bytes)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for MemoryAmount {
    fn schema_name() -> Cow<'static, str> {
        "ShareOrMemory".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["number", "string"], "exclusiveMinimum": 0, "exclusiveMaximum": 1 })
    }
}
