//! What a process of a benchmark answers: ours or Python's.

use std::error::Error;
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;

/// What a process says on the last line that it prints, as JSON.
pub(crate) fn answer<T: DeserializeOwned>(mut command: Command) -> Result<T, Box<dyn Error>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|_| format!("{command:?} ended with {}: {text}", output.status).into())
}
