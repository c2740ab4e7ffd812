//! What a process knows of the hub without asking it.

use serde::Serialize;

/// How this process may use the hub.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Access {
    /// Its address.
    pub endpoint: Option<String>,
    /// The folder of downloaded files.
    pub cache: Option<String>,
    /// Whether there is a token. Its value is a secret.
    pub has_token: bool,
    /// Why it is not asked.
    pub problem: Option<String>,
}
