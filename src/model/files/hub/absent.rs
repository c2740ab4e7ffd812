//! The hub of a program that was built without it.

use std::path::PathBuf;

use super::{HubError, Pinned};
use crate::base::{Interrupt, Progress};

/// Cannot be done without the feature `hub`.
pub fn pin(id: &str, _revision: &str) -> Result<Pinned, HubError> {
    Err(HubError::NotBuilt { id: id.to_owned() })
}

/// Cannot be done without the feature `hub`.
pub fn download(
    pinned: &Pinned,
    _variant: Option<&str>,
    _progress: &dyn Progress,
    _interrupt: &Interrupt,
) -> Result<PathBuf, HubError> {
    Err(HubError::NotBuilt { id: pinned.id.clone() })
}
