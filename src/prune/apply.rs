//! A smaller model directory: the model without the units of a selection.

use std::path::Path;

use super::container::Container;
use super::directory;
use super::error::ApplyError;
use super::remap::{self, Remap};
use crate::base::{FileError, copies};
use crate::model::ModelDirectory;
use crate::model::unet::Assembly;
use crate::select::Selection;

/// Writes `model` without the units of `selection` into the folder `output`. Units that `model` has lost before stay
/// removed. The other parts are links, so both folders must be in the cache. The folder of a bare U-Net gives the folder of a bare U-Net. A layout that drops layers is written for the stock
/// class with other layer numbers, and with a table for LoRAs.
pub fn apply(model: &ModelDirectory, selection: &Selection, output: &Path) -> Result<(), ApplyError> {
    let teacher = model.unet_config()?;
    let (assembly, container) = match selection.dropped_layers()? {
        Some(layout) => (layout.assemble(&teacher)?, Container::Directory),
        None => {
            let pruned = teacher.prune(&selection.removed())?;
            let itself = Assembly::new(&pruned, pruned.clone(), None);
            (itself.expect("BUG: a U-Net has a place for its own units"), Container::Code)
        }
    };
    directory::write(model, &assembly, container, None, copies::link, output)?;
    let earlier = Remap::of_model(model.path()).map_err(FileError::at(model.path()))?;
    if container == Container::Directory || earlier.is_some() {
        let table = Remap::new(&teacher, &assembly, container);
        let path = output.join(remap::FILE);
        table.after(earlier.unwrap_or_default()).save(&path).map_err(FileError::at(&path))?;
    }
    selection.save(output).map_err(FileError::at(output))?;
    Ok(())
}
