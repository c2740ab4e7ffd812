//! How fine the units are that may be removed: whole Transformer2Ds, their blocks, or the parts of blocks.
//!
//! It is asked for by the smallest kinds that may go by themselves. What holds nothing but units is a unit too,
//! because losing all that it holds is losing it: its shell and its norms go as well, and its loss is its own.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;
use thiserror::Error;

use super::unit::UnitKind;

/// The kinds of units that may go, closed upwards: with all parts of a block the block, with blocks the Transformer2D.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeSet<UnitKind>")]
#[schemars(extend("minItems" = 1))]
pub struct Granularity(BTreeSet<UnitKind>);

/// Kinds that do not go together.
#[derive(Debug, Error)]
pub enum GranularityError {
    /// No kind at all.
    #[error("a granularity needs at least one of {}", known())]
    Empty,
    /// No such kind.
    #[error("`{name}` is not a kind of unit; the kinds are {}", known())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Wholes beside some of their parts.
    #[error(
        "`{whole}` beside `{part}` does not say what goes with the last part; \
         name all of `attn1`, `attn2` and `ff`, or none"
    )]
    Mixed {
        /// What holds the part.
        whole: UnitKind,
        /// The part.
        part: UnitKind,
    },
}

impl Granularity {
    /// The granularity whose smallest units are of these kinds.
    pub fn new(kinds: impl IntoIterator<Item = UnitKind>) -> Result<Self, GranularityError> {
        let mut kinds: BTreeSet<UnitKind> = kinds.into_iter().collect();
        let parts: Vec<_> = UnitKind::PARTS.into_iter().filter(|part| kinds.contains(part)).collect();
        let whole = [UnitKind::Block, UnitKind::Transformer].into_iter().find(|whole| kinds.contains(whole));
        match (whole, parts.as_slice()) {
            _ if kinds.is_empty() => return Err(GranularityError::Empty),
            (_, [_, _, _]) => drop(kinds.insert(UnitKind::Block)),
            (Some(whole), &[part, ..]) => return Err(GranularityError::Mixed { whole, part }),
            _ => {}
        }
        if kinds.contains(&UnitKind::Block) {
            kinds.insert(UnitKind::Transformer);
        }
        Ok(Self(kinds))
    }

    /// Whether a unit of this kind may go, which holds these parts of blocks.
    pub(super) fn allows(&self, kind: UnitKind, parts: &[UnitKind]) -> bool {
        self.0.contains(&kind) || !parts.is_empty() && parts.iter().all(|part| self.0.contains(part))
    }
}

impl Default for Granularity {
    /// ResNets and transformer blocks: LAPTOP-Diff's layers.
    fn default() -> Self {
        Self::new([UnitKind::Resnet, UnitKind::Block]).expect("these go together")
    }
}

impl TryFrom<BTreeSet<UnitKind>> for Granularity {
    type Error = GranularityError;

    fn try_from(kinds: BTreeSet<UnitKind>) -> Result<Self, GranularityError> {
        Self::new(kinds)
    }
}

impl FromStr for Granularity {
    type Err = GranularityError;

    /// Kinds with commas between them.
    fn from_str(text: &str) -> Result<Self, GranularityError> {
        let kind = |name: &str| {
            let found = UnitKind::ALL.into_iter().find(|kind| kind.to_string() == name.trim());
            found.ok_or_else(|| GranularityError::Unknown { name: name.to_owned() })
        };
        Self::new(text.split(',').map(kind).collect::<Result<Vec<_>, _>>()?)
    }
}

impl fmt::Display for Granularity {
    /// The smallest kinds, as they are asked for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let smallest = self.0.iter().filter(|kind| match kind {
            UnitKind::Transformer => !self.0.contains(&UnitKind::Block),
            UnitKind::Block => !self.0.contains(&UnitKind::Ff),
            _ => true,
        });
        f.write_str(&names(smallest))
    }
}

fn known() -> String {
    names(&UnitKind::ALL)
}

fn names<'a>(kinds: impl IntoIterator<Item = &'a UnitKind>) -> String {
    kinds.into_iter().map(UnitKind::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_said_in_several_ways_is_one_granularity() {
        let of = |text: &str| text.parse::<Granularity>().expect("kinds that go together");
        assert_eq!(of("block,resnet"), Granularity::default());
        assert_eq!(of("resnet, block,transformer"), Granularity::default());
        assert_eq!(of("attn1,attn2,ff,block"), of("ff,attn2,attn1"));
        for text in ["resnet,block", "resnet,transformer", "resnet,attn1,attn2,ff", "attn1", "attn2,ff"] {
            assert_eq!(of(text).to_string(), text);
        }
    }

    #[test]
    fn what_does_not_go_together_says_what_would() {
        let refused = |text: &str| text.parse::<Granularity>().expect_err("refused").to_string();
        assert!(refused("block,attn1").contains("all of `attn1`, `attn2` and `ff`"));
        assert!(refused("transformer,attn2,ff").contains("`transformer` beside `attn2`"));
        assert!(refused("resnets").contains("`resnets` is not a kind of unit; the kinds are resnet,"));
        assert!(Granularity::new([]).is_err());
    }
}
