//! The granularity of removable units: whole Transformer2Ds, their blocks, or the parts of blocks.
//!
//! A granularity is given by the smallest kinds that can be removed on their own. A module that consists only of units
//! is a unit too, because removing everything in it removes the module: its shell and its norms are removed with it,
//! and its importance is measured separately.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;
use thiserror::Error;

use super::unit::UnitKind;

/// The kinds of units that can be removed, closed upwards: if all parts of a block are included, so is the block; if
/// blocks are, so is the Transformer2D.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeSet<UnitKind>")]
#[schemars(extend("minItems" = 1))]
pub struct Granularity(BTreeSet<UnitKind>);

/// An invalid combination of kinds.
#[derive(Debug, Error)]
pub enum GranularityError {
    /// No kind was given.
    #[error("a granularity needs at least one of {}", known())]
    Empty,
    /// An unknown kind.
    #[error("`{name}` is not a kind of unit; the kinds are {}", known())]
    Unknown {
        /// The name as given.
        name: String,
    },
    /// A kind together with only some of its parts.
    #[error(
        "`{whole}` together with `{part}` is ambiguous when the last part is removed; \
         name all of `attn1`, `attn2` and `ff`, or none"
    )]
    Mixed {
        /// The containing kind.
        whole: UnitKind,
        /// The part.
        part: UnitKind,
    },
}

impl Granularity {
    /// The granularity with these smallest kinds.
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

    /// Whether a unit of this kind that contains these parts of blocks can be removed.
    pub(super) fn allows(&self, kind: UnitKind, parts: &[UnitKind]) -> bool {
        self.0.contains(&kind) || !parts.is_empty() && parts.iter().all(|part| self.0.contains(part))
    }
}

impl Default for Granularity {
    /// ResNets and transformer blocks: LAPTOP-Diff's layers.
    fn default() -> Self {
        Self::new([UnitKind::Resnet, UnitKind::Block]).expect("these kinds can be combined")
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

    /// Kinds, separated by commas.
    fn from_str(text: &str) -> Result<Self, GranularityError> {
        let kind = |name: &str| {
            let found = UnitKind::ALL.into_iter().find(|kind| kind.to_string() == name.trim());
            found.ok_or_else(|| GranularityError::Unknown { name: name.to_owned() })
        };
        Self::new(text.split(',').map(kind).collect::<Result<Vec<_>, _>>()?)
    }
}

impl fmt::Display for Granularity {
    /// The smallest kinds, as the user writes them.
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
    fn equivalent_lists_give_one_granularity() {
        let of = |text: &str| text.parse::<Granularity>().expect("a valid combination");
        assert_eq!(of("block,resnet"), Granularity::default());
        assert_eq!(of("resnet, block,transformer"), Granularity::default());
        assert_eq!(of("attn1,attn2,ff,block"), of("ff,attn2,attn1"));
        for text in ["resnet,block", "resnet,transformer", "resnet,attn1,attn2,ff", "attn1", "attn2,ff"] {
            assert_eq!(of(text).to_string(), text);
        }
    }

    #[test]
    fn an_invalid_combination_is_explained() {
        let refused = |text: &str| text.parse::<Granularity>().expect_err("refused").to_string();
        assert!(refused("block,attn1").contains("all of `attn1`, `attn2` and `ff`"));
        assert!(refused("transformer,attn2,ff").contains("`transformer` together with `attn2`"));
        assert!(refused("resnets").contains("`resnets` is not a kind of unit; the kinds are resnet,"));
        assert!(Granularity::new([]).is_err());
    }
}
