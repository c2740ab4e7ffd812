//! JSON files that carry the digest of their own text, so that no changed byte is taken for a value.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Digest, files};

/// The name of the last member.
const SEAL: &str = "\"seal\": \"";

/// `value`, which must be a JSON object, with a seal as its last member.
pub fn to_vec(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    assert!(text.ends_with(b"\n}"), "BUG: only an object with members can be sealed");
    text.truncate(text.len() - 2);
    let seal = Digest::of(&text);
    text.extend_from_slice(format!(",\n  {SEAL}{seal}\"\n}}\n").as_bytes());
    Ok(text)
}

/// Reads a sealed value. A text that differs from the one that was sealed is an error of kind
/// [`io::ErrorKind::InvalidData`].
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> io::Result<T> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    // The seal has a fixed length, so what is sealed ends at a known place.
    let end = format!(",\n  {SEAL}{}\"\n}}\n", Digest::of(b""));
    let sealed = text.len().checked_sub(end.len()).map(|length| &text[..length]);
    let sealed = sealed.ok_or_else(|| invalid("it is cut short"))?;
    if text != [sealed, format!(",\n  {SEAL}{}\"\n}}\n", Digest::of(sealed)).as_bytes()].concat() {
        return Err(invalid("its seal does not fit its text"));
    }
    let value = serde_json::from_slice([sealed, b"\n}"].concat().as_slice());
    value.map_err(|error| invalid(&error.to_string()))
}

/// Reads a sealed file.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    from_slice(&std::fs::read(path)?)
}

/// Reads a sealed file of one version of its layout, which `format_of` finds in it.
pub fn read_of<T: DeserializeOwned>(
    path: &Path,
    format: u32,
    format_of: impl Fn(&T) -> u32,
) -> io::Result<T> {
    files::of_format(read(path)?, format, format_of)
}

/// Writes a sealed file, atomically and to the disk.
pub fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    files::write_atomic(path, &to_vec(value)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_changed_byte_is_noticed() -> io::Result<()> {
        let value = BTreeMap::from([("one", 1.5), ("two", 2.0)]);
        let text = to_vec(&value)?;
        let read: BTreeMap<String, f64> = from_slice(&text)?;
        assert_eq!(read, value.into_iter().map(|(name, number)| (name.to_owned(), number)).collect());
        let json: serde_json::Value = serde_json::from_slice(&text)?;
        assert!(json["seal"].is_string(), "other programs read it as JSON");
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[place] ^= 1 << bit;
                let error = from_slice::<serde_json::Value>(&changed).expect_err("it was changed");
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            }
            assert!(from_slice::<serde_json::Value>(&text[..place]).is_err());
        }
        Ok(())
    }
}
