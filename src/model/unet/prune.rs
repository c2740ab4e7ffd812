//! Removes units. The pruned U-Net shares its tensors with the original.

use std::collections::BTreeSet;

use super::config::UNetConfig;
use super::flatten::normalise;
use super::network::UNet;
use crate::base::UnitId;
use crate::model::network::PruneError;

impl UNetConfig {
    /// This configuration with more units removed. Units that are already removed may be named again.
    pub fn prune(&self, units: &BTreeSet<UnitId>) -> Result<Self, PruneError> {
        let all = self.removed_units.union(units).cloned().collect();
        let removed_units = normalise(self, &all).map_err(|unit| PruneError::UnknownUnit { unit })?;
        Ok(Self { removed_units, ..self.clone() })
    }
}

impl UNet {
    /// This U-Net with more units removed. Units that are already removed may be named again.
    pub fn prune(&self, units: &BTreeSet<UnitId>) -> Result<Self, PruneError> {
        let config = self.config.prune(units)?;
        let inventory = config.inventory().at(self.inventory.granularity().clone());
        let steps = self.steps.without_removed(inventory.specs());
        Ok(Self { config, inventory, steps, embedding: self.embedding.clone(), dtype: self.dtype })
    }
}
