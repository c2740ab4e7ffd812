//! Stages by name, in the order of the file: `{ teacher: load, pruned: student }`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::base::StageId;

/// A map that keeps its order and refuses duplicate keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Named(Vec<(String, StageId)>);

impl Named {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &StageId)> {
        self.0.iter().map(|(name, stage)| (name.as_str(), stage))
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("stages by name, such as { teacher: teacher, pruned: student }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
                let mut entries: Vec<(String, StageId)> = Vec::new();
                while let Some((name, stage)) = map.next_entry::<String, StageId>()? {
                    if entries.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format!("`{name}` is given twice")));
                    }
                    entries.push((name, stage));
                }
                if entries.is_empty() {
                    return Err(A::Error::custom("at least one model is needed"));
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl JsonSchema for Named {
    fn schema_name() -> Cow<'static, str> {
        "Named".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": "string" }, "minProperties": 1 })
    }
}
