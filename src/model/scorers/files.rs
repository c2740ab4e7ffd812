//! The files of a scorer's folder that are read, and so enter the key of what is made with it.

use std::path::Path;

use super::reward::{CONFIG, FILES};
use crate::model::clip;
use crate::model::error::ModelError;

/// The names of the files that are read in a folder with the weights of a scorer.
pub fn scorer_files(folder: &Path) -> Result<Vec<String>, ModelError> {
    Ok(with_bert(clip::scorer_files(folder)?, folder))
}

/// The names of the files that are read in a folder that only has the processor of a scorer.
pub fn processor_files(folder: &Path) -> Vec<String> {
    with_bert(clip::processor_files(folder), folder)
}

fn with_bert(mut names: Vec<String>, folder: &Path) -> Vec<String> {
    let others = FILES.into_iter().chain([CONFIG]).filter(|name| folder.join(name).is_file());
    names.extend(others.map(str::to_owned));
    names.sort();
    names.dedup();
    names
}
