//! Values that rank 0 tells all other ranks, as JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Collective, CollectiveError};

/// Tells all other ranks a value; called by rank 0.
pub fn tell(collective: &dyn Collective, value: &impl Serialize) -> Result<(), CollectiveError> {
    let mut text = serde_json::to_vec(value).expect("names, numbers and paths serialise");
    collective.broadcast(&mut (text.len() as u64).to_le_bytes(), 0)?;
    collective.broadcast(&mut text, 0)
}

/// The value that rank 0 tells.
pub fn hear<T: DeserializeOwned>(collective: &dyn Collective) -> Result<T, CollectiveError> {
    let mut length = [0; 8];
    collective.broadcast(&mut length, 0)?;
    let mut text = vec![0; u64::from_le_bytes(length) as usize];
    collective.broadcast(&mut text, 0)?;
    let value = serde_json::from_slice(&text);
    value.map_err(|error| CollectiveError::system("reading a message of rank 0")(error.into()))
}
