//! Opens CUDA's libraries at run time instead of when the program starts.
//!
//! cudarc can do so itself (`dynamic-loading`), but candle 0.11 asks for `dynamic-linking`, and the two exclude each other. So
//! this program defines the functions that cudarc imports: each jumps to the address in its slot. [`load`] fills the
//! slots from the libraries. The linker then finds nothing left to import and leaves the libraries out.

use std::sync::OnceLock;

use super::functions::{FUNCTIONS, slots};
use super::slots::Source;
use crate::backend::library::Library;

/// Opens the libraries and fills the slots, once.
pub(super) fn load() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(fill).clone()
}

/// The files that are missing.
pub(super) fn missing() -> Vec<String> {
    let files = Source::NEEDED.map(Source::file);
    files.into_iter().filter(|file| Library::open(&[file]).is_err()).collect()
}

fn fill() -> Result<(), String> {
    let open = |source: Source| Ok((source, Library::open(&[&source.file()])?));
    let libraries: Vec<(Source, Library)> =
        Source::NEEDED.into_iter().map(open).collect::<Result<_, String>>()?;
    let slots = slots();
    for (index, (source, name)) in FUNCTIONS.iter().enumerate() {
        let library = libraries.iter().find(|(opened, _)| opened == source);
        if let Some(address) = library.and_then(|(_, library)| library.address(name)) {
            // SAFETY: there is a slot for each function, and nobody calls one before this has ended.
            unsafe { slots.add(index).write(address) };
        }
    }
    Ok(())
}
