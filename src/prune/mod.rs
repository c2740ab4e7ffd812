//! A selection made real, and models written for other programs.
//!
//! Kept tensors keep types and bytes. By default they keep their names too, and the U-Net's folder carries the few
//! lines of Python by which diffusers builds the pruned network at its true size. An export may renumber
//! layers and pad what a loader insists on ([`Format`]).

mod check;
mod directory;
mod error;
mod export;
mod format;
mod remap;
mod single_file;

use std::path::Path;

pub use error::ExportError;
pub use export::{Export, Order, remap_beside};
pub use format::{Container, FORMATS, Format};
pub use remap::Remap;

use crate::model::ModelDirectory;
use crate::model::unet::Assembly;
use crate::select::Selection;

/// Writes `model` without the units of `selection` into the folder `output`. A teacher that is pruned already
/// loses more; a bare U-Net's folder gives a bare U-Net's folder. A layout that drops layers has the stock class and
/// other layer numbers, with a table for LoRAs beside them.
pub fn apply(model: &ModelDirectory, selection: &Selection, output: &Path) -> Result<(), ExportError> {
    let teacher = model.unet_config()?;
    let (assembly, container) = match selection.dropped_layers()? {
        Some(layout) => (layout.assemble(&teacher)?, Container::Directory),
        None => {
            let pruned = teacher.prune(&selection.removed())?;
            let itself = Assembly::new(&pruned, pruned.clone(), None);
            (itself.expect("BUG: a U-Net has a place for its own units"), Container::Code)
        }
    };
    directory::write(model, &assembly, container, None, output)?;
    let earlier = Remap::of_model(model.path()).map_err(ExportError::file(model.path()))?;
    if container == Container::Directory || earlier.is_some() {
        let table = Remap::new(&teacher, &assembly, container == Container::Directory);
        let path = output.join(remap::FILE);
        table.after(earlier.unwrap_or_default()).save(&path).map_err(ExportError::file(&path))?;
    }
    selection.save(output).map_err(ExportError::file(output))
}
