//! Paths in JSON, for `#[serde(with = "crate::base::path_text")]`. A path is text as it is; one that is not UTF-8 is a
//! `file:` URI (RFC 8089), in which its other bytes are percent-encoded.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serializer};

const SCHEME: &str = "file:";

/// The path as text.
pub fn of(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.starts_with(SCHEME) => text.to_owned(),
        _ => {
            let encoded = path.as_os_str().as_bytes().iter().map(|&byte| match byte {
                b'/' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
                _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            });
            SCHEME.chars().map(String::from).chain(encoded).collect()
        }
    }
}

/// The path of a text. `None` if an encoded byte is not two hexadecimal digits.
fn read(text: &str) -> Option<PathBuf> {
    let Some(encoded) = text.strip_prefix(SCHEME) else { return Some(text.into()) };
    let mut parts = encoded.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(rest.as_bytes());
    }
    Some(OsString::from_vec(bytes).into())
}

/// For serde.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&of(path))
}

/// For serde.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    read(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a path")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_comes_back() {
        let latin = PathBuf::from(OsString::from_vec(b"/tmp/caf\xe9 100%/model".to_vec()));
        assert_eq!(of(&latin), "file:/tmp/caf%E9%20100%25/model");
        for path in [latin, "/tmp/café 100%".into(), "relative".into(), "file:odd".into(), "".into()] {
            assert_eq!(read(&of(&path)).as_ref(), Some(&path), "{path:?}");
        }
        assert_eq!(of(Path::new("/tmp/café")), "/tmp/café");
        assert_eq!(read("file:/%e"), None);
        assert_eq!(read("file:/%ü1"), None);
    }
}
