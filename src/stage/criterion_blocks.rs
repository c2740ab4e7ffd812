//! The parameters of criteria inside `with:` of `use: score`: a mapping under the name of each criterion that has any.
//!
//! The names of these blocks come from [`CRITERIA`], not from the fields of a struct. So the mapping is read in one
//! pass that gives the blocks to their criteria and everything else to the derived struct.

use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use crate::score::{CRITERIA, Criterion, CriterionInfo, with_parameters};

/// Criteria with the parameters that a pipeline gives them.
pub(super) type Blocks = Vec<Arc<dyn Criterion>>;

/// Reads the fixed parameters `T` and the blocks from one mapping.
pub(super) fn split<'de, T, D>(deserializer: D) -> Result<(T, Blocks), D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let mut blocks = Vec::new();
    let fixed = T::deserialize(Split { deserializer, blocks: &mut blocks })?;
    Ok((fixed, blocks))
}

/// The schema of `T` with a property for each criterion that has parameters.
pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    for info in CRITERIA {
        let Some(parameters) = info.parameters else { continue };
        let mut block = parameters(generator);
        block
            .insert("description".to_owned(), format!("Parameters of the criterion `{}`.", info.name).into());
        let properties = schema.ensure_object().entry("properties").or_insert_with(|| serde_json::json!({}));
        if let Some(properties) = properties.as_object_mut() {
            properties.insert(info.name.to_owned(), block.into());
        }
    }
    schema
}

/// A deserializer of a struct that takes the blocks of criteria out of the mapping.
struct Split<'b, D> {
    deserializer: D,
    blocks: &'b mut Blocks,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Split<'_, D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_struct(name, fields, Fixed { visitor, fields, blocks: self.blocks })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The visitor of the struct, and, as a mapping, its entries without the blocks.
struct Fixed<'b, V> {
    visitor: V,
    fields: &'static [&'static str],
    blocks: &'b mut Blocks,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Fixed<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Fixed { visitor: map, fields: self.fields, blocks: self.blocks })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fixed<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.visitor.next_key_seed(KeySeed { fields: self.fields })? {
            let info = match key {
                Key::Block(info) => info,
                Key::Field(name) => {
                    let name: StringDeserializer<A::Error> = name.into_deserializer();
                    return seed.deserialize(name).map(Some);
                }
            };
            if self.blocks.iter().any(|block| block.info().name == info.name) {
                return Err(A::Error::custom(format_args!("duplicate field `{}`", info.name)));
            }
            let block = self.visitor.next_value_seed(BlockSeed(info))?;
            self.blocks.push(block);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.visitor.next_value_seed(seed)
    }
}

/// A key of the mapping.
enum Key {
    /// A field of the struct.
    Field(String),
    /// The name of a criterion with parameters.
    Block(&'static CriterionInfo),
}

/// Classifies a key. An unknown one fails here, where the parser knows its line.
struct KeySeed {
    fields: &'static [&'static str],
}

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a parameter")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        if self.fields.contains(&name) {
            return Ok(Key::Field(name.to_owned()));
        }
        let mut blocks = CRITERIA.iter().filter(|info| info.parameters.is_some());
        if let Some(info) = blocks.clone().find(|info| info.name == name) {
            return Ok(Key::Block(info));
        }
        let known = self.fields.iter().copied().chain(blocks.by_ref().map(|info| info.name));
        let known: Vec<_> = known.map(|name| format!("`{name}`")).collect();
        // Worded as serde's own error, which the pipeline's reader recognises by its text.
        Err(E::custom(format_args!("unknown field `{name}`, expected one of {}", known.join(", "))))
    }
}

/// Reads the parameters of a criterion.
struct BlockSeed(&'static CriterionInfo);

impl<'de> DeserializeSeed<'de> for BlockSeed {
    type Value = Arc<dyn Criterion>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Arc<dyn Criterion>, D::Error> {
        with_parameters(self.0.name, deserializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        batch: usize,
    }

    fn read(value: serde_json::Value) -> Result<(Small, Blocks), serde_json::Error> {
        split(value)
    }

    #[test]
    fn blocks_go_to_their_criteria_and_the_rest_to_the_struct() -> Result<(), serde_json::Error> {
        let (small, blocks) = read(json!({ "diff-pruning": { "threshold": 0.3 }, "batch": 2 }))?;
        assert_eq!(small, Small { batch: 2 });
        let names: Vec<_> = blocks.iter().map(|block| block.info().name).collect();
        assert_eq!(names, ["diff-pruning"]);
        Ok(())
    }

    #[test]
    fn unknown_keys_are_refused() {
        let message = |value| read(value).map(drop).expect_err("a wrong block").to_string();
        // A criterion without parameters has no block.
        assert!(
            message(json!({ "batch": 2, "magnitude": {} }))
                .starts_with("unknown field `magnitude`, expected one of `batch`, ")
        );
        assert!(
            message(json!({ "batch": 2, "diff-pruning": { "thresh": 1 } }))
                .contains("unknown field `thresh`")
        );
    }
}
