//! What a selection must save beside parameters, as a pipeline file states it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::base::units::Bytes;
use crate::select::Memory;

/// Shares that must go at least, each above 0 and below 1.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Others {
    /// Of the multiply-accumulates of a forward pass at the model's own size.
    pub(super) macs: Option<f64>,
    /// Of the time of a forward pass, as `profile` measured it.
    pub(super) latency: Option<f64>,
    /// Of the weights' memory; or the memory that they must fit into in f16 or bf16, such as `2GB`.
    pub(super) memory: Option<Amount>,
}

/// A share, or an amount of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amount(pub(super) Memory);

impl Others {
    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.macs.is_none() && self.latency.is_none() && self.memory.is_none()
    }
}

impl Amount {
    /// The share, if it is one.
    pub(super) fn share(self) -> Option<f64> {
        match self.0 {
            Memory::Share(share) => Some(share),
            Memory::Bytes(_) => None,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Memory::Share(share) => write!(f, "{share:?}"),
            Memory::Bytes(bytes) => write!(f, "{bytes} B"),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as 0.2, or an amount of memory such as 2GB")
            }

            fn visit_f64<E: de::Error>(self, share: f64) -> Result<Amount, E> {
                Ok(Amount(Memory::Share(share)))
            }

            fn visit_u64<E: de::Error>(self, share: u64) -> Result<Amount, E> {
                self.visit_f64(share as f64)
            }

            fn visit_i64<E: de::Error>(self, share: i64) -> Result<Amount, E> {
                self.visit_f64(share as f64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                let Bytes(bytes) = text.parse().map_err(E::custom)?;
                Ok(Amount(Memory::Bytes(bytes)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "ShareOrMemory".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["number", "string"] })
    }
}
