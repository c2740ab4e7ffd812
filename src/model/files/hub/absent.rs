//! Replaces the hub client in a program built without it.

use std::path::PathBuf;

use super::{HubError, Pinned};
use crate::base::{Interrupt, Progress};

/// Always fails: the program was built without the feature `hub`.
pub fn pin(id: &str, _revision: &str) -> Result<Pinned, HubError> {
    Err(HubError::NotBuilt { id: id.to_owned() })
}

/// Always fails: the program was built without the feature `hub`.
pub fn download(
    pinned: &Pinned,
    _variant: Option<&str>,
    _progress: &dyn Progress,
    _interrupt: &Interrupt,
) -> Result<PathBuf, HubError> {
    Err(HubError::NotBuilt { id: pinned.id.clone() })
}

/// Nothing is asked.
pub fn access() -> super::Access {
    let problem = "this program was built without the feature `hub`".to_owned();
    super::Access { problem: Some(problem), ..super::Access::default() }
}

/// Always fails: the program was built without the feature `hub`.
pub fn download_scorer(
    pinned: &Pinned,
    _weights: bool,
    _progress: &dyn Progress,
    _interrupt: &Interrupt,
) -> Result<PathBuf, HubError> {
    Err(HubError::NotBuilt { id: pinned.id.clone() })
}
