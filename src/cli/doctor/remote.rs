//! Whether the remote of the cache answers.

use serde::Serialize;

use crate::base::Interrupt;
use crate::cache::Shared;

/// Where the settings share artefacts.
#[derive(Serialize)]
pub(super) struct Remote {
    address: String,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Remote {
    pub(super) fn ask(shared: &Shared) -> Self {
        Self { address: shared.address().to_string(), problem: shared.problem(&Interrupt::default()) }
    }

    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.address, self.problem.as_deref().unwrap_or("answers"))
    }
}
