//! Removing units. The pruned U-Net shares its tensors with the one it came from.

use std::collections::{BTreeMap, BTreeSet};

use miette::Diagnostic;
use thiserror::Error;

use super::config::UNetConfig;
use super::spec::{Kind, flatten, within};
use super::step::Step;
use super::{Steps, UNet};
use crate::base::UnitId;

/// A set of units that cannot be removed.
#[derive(Debug, Error, Diagnostic)]
pub enum PruneError {
    /// The U-Net never had such a unit.
    #[error("the U-Net has no unit `{unit}`")]
    #[diagnostic(
        code(unet::unknown_unit),
        help("`laptop-diff inspect MODEL --granularity resnet,attn1,attn2,ff` lists all that can go")
    )]
    UnknownUnit {
        /// The id.
        unit: UnitId,
    },
}

impl UNetConfig {
    /// This configuration without more units. What is gone already may be named again.
    pub fn prune(&self, units: &BTreeSet<UnitId>) -> Result<Self, PruneError> {
        let all = self.removed_units.union(units).cloned().collect();
        let removed_units = normalise(self, &all).map_err(|unit| PruneError::UnknownUnit { unit })?;
        Ok(Self { removed_units, ..self.clone() })
    }
}

impl UNet {
    /// This U-Net without more units. What is gone already may be named again.
    pub fn prune(&self, units: &BTreeSet<UnitId>) -> Result<Self, PruneError> {
        let config = self.config.prune(units)?;
        let inventory = config.inventory().at(self.inventory.granularity().clone());
        let steps = match &self.steps {
            Steps::Held(steps) => {
                let here: BTreeMap<&str, &Step> = steps.iter().map(|step| (step.path(), step)).collect();
                let rest = inventory.specs().iter().map(|spec| match spec.kind {
                    Kind::Shortcut { .. } => here[spec.path.as_str()].without_branch(),
                    _ => here[spec.path.as_str()].clone(),
                });
                Steps::Held(rest.collect())
            }
            Steps::Streamed(vb) => Steps::Streamed(vb.clone()),
        };
        Ok(Self { config, inventory, steps, embedding: self.embedding.clone(), dtype: self.dtype })
    }
}

/// The one way to write a set of removed units: a transformer block of which no part is left goes whole, so does a
/// Transformer2D of which no block is left, and what goes whole is named alone. Fails with the first id that the unpruned
/// U-Net does not have.
pub(super) fn normalise(config: &UNetConfig, units: &BTreeSet<UnitId>) -> Result<BTreeSet<UnitId>, UnitId> {
    let specs = flatten(&UNetConfig { removed_units: BTreeSet::new(), ..config.clone() });
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
    for spec in &specs {
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
