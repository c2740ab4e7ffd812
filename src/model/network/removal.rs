//! Sets of removed units.

use std::collections::BTreeSet;

use miette::Diagnostic;
use thiserror::Error;

use super::spec::{Kind, Spec, within};
use crate::base::UnitId;

/// A set of units that cannot be removed.
#[derive(Debug, Error, Diagnostic)]
pub enum PruneError {
    /// The U-Net has no such unit.
    #[error("the U-Net has no unit `{unit}`")]
    #[diagnostic(
        code(unet::unknown_unit),
        help("`laptop-diff inspect MODEL --granularity resnet,attn1,attn2,ff` lists all removable units")
    )]
    UnknownUnit {
        /// The id.
        unit: UnitId,
    },
}

/// Normalises a set of removed units, so that each set has one form: a transformer block whose parts are all removed is
/// removed whole, and so is a Transformer2D whose blocks are all removed; only the outermost removed unit is named.
/// `specs` is the complete list, from which nothing is removed; fails with the first id that it does not contain.
pub(in crate::model) fn normalise(
    specs: &[Spec],
    units: &BTreeSet<UnitId>,
) -> Result<BTreeSet<UnitId>, UnitId> {
    let mut known = BTreeSet::new();
    let mut left = units.clone();
    let (mut blocks, mut parts) = (Vec::new(), Vec::new());
    let mut gather = |inside: Vec<UnitId>, whole: &UnitId| {
        let emptied = !inside.is_empty() && inside.iter().all(|unit| left.contains(unit));
        if emptied || left.contains(whole) {
            left.retain(|unit| !within(unit.as_str(), whole.as_str()));
            left.insert(whole.clone());
        }
    };
    for spec in specs {
        let id = UnitId::from(spec.path.as_str());
        match spec.kind {
            Kind::SelfAttention { .. } | Kind::CrossAttention { .. } | Kind::FeedForward { .. } => {
                parts.push(id.clone());
            }
            Kind::Block => {
                gather(std::mem::take(&mut parts), &id);
                blocks.push(id.clone());
            }
            Kind::Exit { .. } => gather(std::mem::take(&mut blocks), &id),
            Kind::Resnet { .. } => {}
            _ => continue,
        }
        known.insert(id);
    }
    match units.iter().find(|id| !known.contains(*id)) {
        Some(unknown) => Err(unknown.clone()),
        None => Ok(left),
    }
}
