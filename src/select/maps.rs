//! Budgets that count a linear map in place of each removed unit, as a reconstruction with `linear` puts there.
//!
//! Neighbours that are removed together share one map, so a selection removes at least what is counted.

use std::collections::BTreeMap;

use super::error::SelectError;
use super::request::unet;
use crate::base::UnitId;
use crate::model::network::LinearMap;
use crate::score::Scores;

/// Takes the cost of a linear map off what the removal of each unit saves, in parameters and multiply-accumulates. A unit of
/// which a learned shortcut remains needs no map.
pub fn count_maps(scores: &mut Scores) -> Result<(), SelectError> {
    let inventory = unet(scores)?.inventory();
    let maps: BTreeMap<&UnitId, LinearMap> =
        inventory.removable().iter().filter_map(|unit| Some((&unit.id, unit.map?))).collect();
    for unit in &mut scores.units {
        if let Some(map) = maps.get(&unit.id) {
            unit.parameters = unit.parameters.saturating_sub(map.parameters);
            unit.macs = unit.macs.saturating_sub(map.macs);
        }
    }
    Ok(())
}
