//! Removes units, and puts linear maps in their place. The changed U-Net shares its tensors with the original.

use std::collections::BTreeSet;

use candle_core::{Error, Result as Computed};

use super::config::UNetConfig;
use super::flatten::{flatten, normalise};
use super::network::UNet;
use crate::base::UnitId;
use crate::model::network::spec::Spec;
use crate::model::network::{PruneError, Step};

impl UNetConfig {
    /// This configuration with more units removed. Units that are already removed may be named again.
    pub fn prune(&self, units: &BTreeSet<UnitId>) -> Result<Self, PruneError> {
        let all = self.removed_units.union(units).cloned().collect();
        let removed_units = normalise(self, &all).map_err(|unit| PruneError::UnknownUnit { unit })?;
        // A unit inside another removed one is not listed any more, nor is its map.
        let linear_units = self.linear_units.intersection(&removed_units).cloned().collect();
        Ok(Self { removed_units, linear_units, ..self.clone() })
    }

    /// This configuration with linear maps in place of more removed units. Fails with the first unit that is not removed, or
    /// of which a learned shortcut remains.
    pub fn with_maps(&self, units: &BTreeSet<UnitId>) -> Result<Self, UnitId> {
        let linear_units = self.linear_units.union(units).cloned().collect();
        let mapped = Self { linear_units, ..self.clone() };
        let specs = flatten(&mapped);
        let has_map = |unit: &&UnitId| {
            let mut there = specs.iter().filter(|spec| spec.path == unit.as_str());
            mapped.removed_units.contains(*unit) && there.any(Spec::is_map)
        };
        match mapped.linear_units.iter().find(|unit| !has_map(unit)) {
            Some(unit) => Err(unit.clone()),
            None => Ok(mapped),
        }
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
    /// This U-Net with linear maps that change nothing in place of more removed units; see [`UNetConfig::with_maps`].
    /// Where weights are streamed, a walk must replace these steps by [`UNet::identity`].
    pub fn with_maps(&self, units: &BTreeSet<UnitId>) -> Computed<Self> {
        let config = self.config.with_maps(units);
        let config = config.map_err(|unit| Error::Msg(format!("`{unit}` has no place for a linear map")))?;
        let inventory = config.inventory().at(self.inventory.granularity().clone());
        let steps = self.steps.with_maps(inventory.specs(), self.device())?;
        Ok(Self { config, inventory, steps, embedding: self.embedding.clone(), dtype: self.dtype })
    }

    /// The linear map at this place of the walk, as it is before it is solved: the identity.
    pub fn identity(&self, place: usize) -> Computed<Step> {
        Step::identity(&self.inventory.specs()[place], self.steps.dtype(), self.device())
    }
}
